"""What anomalib's WinCLIP says of some images, for our tests: run by anomalib's own environment (make peers).

    python anomalib_winclip.py FOLDER

Writes random weights, the images, the sentences, and zero-shot and one-shot scores and maps into FOLDER. anomalib asks for an
open_clip before 2.26.1: with a later one its window passes mix the windows of a batch (they transpose what no longer is).
"""

import json
import sys
from pathlib import Path

import open_clip
import torch
from anomalib.models.image.winclip import torch_model
from anomalib.models.image.winclip.prompting import create_prompt_ensemble
from safetensors.torch import save_file

CATEGORY, SEED = "screw", 0

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
torch.manual_seed(SEED)
weights = folder / "random-weights.pt"
torch.save(open_clip.create_model(torch_model.BACKBONE).state_dict(), weights)
torch_model.PRETRAINED = str(weights)
model = torch_model.WinClipModel().eval()
smooth = torch.nn.functional.interpolate(torch.randn(4, 3, 12, 12), size=240, mode="bicubic")
images = smooth + 0.3 * torch.randn(4, 3, 240, 240)
found = {"images": images}
for shots in (0, 1):
    model.setup(CATEGORY, images[3:] if shots else None)
    prediction = model(images[:3])
    found |= {f"scores{shots}": prediction.pred_score, f"maps{shots}": prediction.anomaly_map}
save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "winclip.safetensors")
(folder / "sentences.json").write_text(json.dumps(create_prompt_ensemble(CATEGORY)))
