"""How the embedded model was made (``recipe``): its pictures, captions, features and losses."""
