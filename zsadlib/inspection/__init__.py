"""Your own photographs: an inspector for one kind of object, the views it takes of a picture, and its report."""
