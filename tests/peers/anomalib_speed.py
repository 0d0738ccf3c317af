"""anomalib's side of the performance table, in its own environment: runs what it is told and answers with the seconds.

    python anomalib_speed.py        # lines {"what": "winclip" | "winclip_bfloat16" | "aupro", "number": n} in, seconds out

It lives as long as the comparison, so that both sides take turns on the same machine at the same time.
"""

import json
import sys
import time

import torch
from anomalib.metrics.aupro import _AUPRO
from anomalib.models.image.winclip import torch_model

torch.set_num_threads(2)
torch.manual_seed(0)
torch_model.PRETRAINED = None
model, calls = None, {}


def winclip(number):
    global model
    if model is None:
        model = torch_model.WinClipModel().eval()
        model.setup("screw", None)
    images = torch.randn(number, 3, 240, 240, generator=torch.Generator().manual_seed(1))
    return lambda: model(images)


def winclip_bfloat16(number):
    reference = winclip(number)

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            return reference()

    return run


def aupro(number):
    maps, masks = torch.load(f"{sys.argv[1]}/maps{number}.pt")

    def run():
        metric = _AUPRO(fpr_limit=0.3)
        metric.update(maps, masks)
        return metric.compute()

    return run


print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    key = asked["what"], asked["number"]
    if key not in calls:
        calls[key] = globals()[asked["what"]](asked["number"])
        calls[key]()  # warm
    began = time.perf_counter()
    with torch.inference_mode():
        calls[key]()
    print(time.perf_counter() - began, flush=True)
