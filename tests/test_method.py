"""Backbone, prompts, contextual scoring, aligner and detectors against slow readings of their definitions."""

import json

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from zsadlib import profiles
from zsadlib.detectors import METHODS
from zsadlib.detectors.alfa import Alfa
from zsadlib.detectors.clip_ac import ClipAC
from zsadlib.detectors.musc import MuSc
from zsadlib.detectors.patchcore import PatchCore
from zsadlib.detectors.winclip import WinClip, WinClipPlus
from zsadlib.files import CACHE
from zsadlib.models import aligner, embedded, loading
from zsadlib.models import encoded as encoded_module
from zsadlib.models.encoded import layers, windows
from zsadlib.prompts import STATIC_ABNORMAL, STATIC_NORMAL, TEMPLATES, scoring
from zsadlib.provenance import sha256
from zsadlib.study import methods


@pytest.fixture(scope="module")
def ensemble(backbone):
    normal, abnormal = ["clean bolt", "bolt with damage"], ["cracked bolt", "bolt with a hole", "perfect bolt"]
    return scoring.build_ensemble(backbone, "bolt", normal, abnormal)


@pytest.fixture(scope="module")
def clip_vit():
    """open_clip's own ViT family with random weights, which only a dry run may use."""
    torch.manual_seed(0)
    return loading.load_backbone("ViT-S-32-alt", pretrained=None, allow_random=True)


def test_open_clip_builds_the_embedded_model_by_its_name(backbone, batch):
    embedded.register(CACHE)
    model, _, _ = open_clip.create_model_and_transforms(embedded.NAME)
    embedded.load_weights(model)
    with torch.no_grad():
        theirs = F.normalize(model.eval().encode_image(batch), dim=-1)
        words = F.normalize(model.encode_text(open_clip.get_tokenizer(embedded.NAME)(["damaged bolt"])), dim=-1)
        tokens = model.visual.trunk.forward_features(batch)
    assert torch.allclose(backbone.encode(batch).image, theirs, atol=1e-5)
    assert torch.allclose(backbone.encode_text(["damaged bolt"]), words, atol=1e-5)
    assert torch.allclose(backbone.encode(batch).patches, tokens[:, 1:], atol=1e-4)
    assert embedded.WEIGHTS.stat().st_size < 10e6


def test_every_weight_outside_minilm_comes_from_the_file():
    model = open_clip.create_model(embedded.NAME)
    for name, parameter in model.named_parameters():
        if not name.startswith("text.transformer."):
            parameter.data.fill_(7.0)
    embedded.load_weights(model)
    left = [n for n, p in model.named_parameters() if p.ndim and bool((p == 7.0).all())]
    assert left == []


def test_random_weights_are_refused():
    with pytest.raises(ValueError, match="random weights are refused"):
        loading.load_backbone("ViT-S-32-alt", pretrained=None)
    with pytest.raises(ValueError, match="unknown backbone"):
        loading.load_backbone("ViT-nothing")
    with pytest.raises(ValueError, match="cannot load backbone"):
        loading.load_backbone("ViT-B-32", "no-such-tag")


def test_weights_that_are_not_there_are_one_sentence():
    for name in (embedded.NAME, embedded.TWIN):
        with pytest.raises(ValueError, match="cannot load backbone.*nowhere.safetensors"):
            loading.load_backbone(name, "nowhere.safetensors")


def test_a_gpu_that_is_not_there_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=f"device '{device}' .* no GPU.*; use 'cpu', or 'auto'.*driver"):
            loading.load_backbone(device=device, precision="auto")


def test_weights_that_do_not_belong_to_the_model_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="trained with QuickGELU.*use the backbone 'ViT-B-32-quickgelu'"):
        loading.load_backbone("ViT-B-32", "openai")
    with pytest.raises(ValueError, match="no multiple of ViT-B-16-plus-240's patches of 16"):
        loading.load_backbone("ViT-B-16-plus-240", "laion400m_e32", image_size=250)
    with pytest.raises(ValueError, match="takes images of 120 pixels"):
        loading.load_backbone(image_size=240)
    torch.save({"visual.proj": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="cannot load backbone"):
        loading.load_backbone("ViT-S-32-alt", str(tmp_path / "other.pt"))
    model = open_clip.create_model("ViT-S-32-alt")
    model.visual.preprocess_cfg = model.visual.preprocess_cfg | {"mean": (0.5, 0.5, 0.5)}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"mean": (0.4, 0.4, 0.4), "std": (1, 1, 1)})
    with pytest.raises(ValueError, match=r"images with mean \(0.5, 0.5, 0.5\); weights 'tag' need \(0.4, 0.4, 0.4\)"):
        loading._check_preprocessing(model, "ViT-S-32-alt", "tag")


def test_a_larger_image_interpolates_the_positional_embedding(tmp_path, clip_vit):
    path = tmp_path / "weights.pt"
    torch.save(clip_vit.model.state_dict(), path)
    size = clip_vit.image_size
    same = loading.load_backbone(clip_vit.name, str(path), image_size=size)
    larger = loading.load_backbone(clip_vit.name, str(path), image_size=2 * size)
    assert larger.grid == 2 * same.grid and not larger.random and same.fingerprint != larger.fingerprint
    small, large = (b.visual.positional_embedding[1:].T.unflatten(1, (b.grid, b.grid)) for b in (same, larger))
    both = torch.stack([F.avg_pool2d(large, 2).flatten(), small.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.95 and small.std() > 0.005
    assert larger.encode(torch.randn(1, 3, 2 * size, 2 * size)).patches.shape == (1, larger.grid**2, larger.width)


def test_the_fingerprint_is_of_the_weights_and_the_precision(clip_vit, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(clip_vit.model.state_dict(), path)
    again = loading.load_backbone(clip_vit.name, str(path))
    assert again.fingerprint == clip_vit.fingerprint
    with torch.no_grad():
        again.visual.proj[0, 0] += 1
    del again.fingerprint
    assert again.fingerprint != clip_vit.fingerprint


def test_a_faster_precision_stays_close_to_the_reference(clip_vit, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(clip_vit.model.state_dict(), path)
    fast = loading.load_backbone(clip_vit.name, str(path), precision="bfloat16")
    batch = torch.randn(2, 3, clip_vit.image_size, clip_vit.image_size, generator=torch.Generator().manual_seed(0))
    exact, close = clip_vit.encode(batch, windows(2)), fast.encode(batch, windows(2))
    assert close.image.dtype == torch.float32 and fast.fingerprint != clip_vit.fingerprint
    for a, b in ((exact.image, close.image), (exact.extra["windows", 2], close.extra["windows", 2])):
        assert 1e-6 < (a - b).abs().max() and (a * b).sum(-1).min() > 0.99


def test_a_faster_precision_takes_torch_s_fast_attention(clip_vit, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(clip_vit.model.state_dict(), path)
    fast = loading.load_backbone(clip_vit.name, str(path), "cpu", precision="bfloat16")
    with torch.profiler.profile() as seen:
        fast.encode(torch.zeros(2, 3, clip_vit.image_size, clip_vit.image_size))
    calls = {event.key: event.count for event in seen.key_averages()}
    assert calls["aten::_native_multi_head_attention"] == len(fast.blocks)


def test_any_open_clip_vit_fits_the_interface(clip_vit):
    batch = torch.randn(2, 3, clip_vit.image_size, clip_vit.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = F.normalize(clip_vit.model.encode_image(batch), dim=-1)
    encoded = clip_vit.encode(batch)
    assert clip_vit.random and torch.allclose(encoded.image, theirs, atol=1e-5)
    assert encoded.patches.shape == (2, clip_vit.grid**2, clip_vit.width)
    whole = clip_vit.encode(batch, windows(clip_vit.grid))  # the window that is the whole image
    assert torch.allclose(whole.extra["windows", clip_vit.grid][:, 0], theirs, atol=1e-5)


def test_windows_are_transformer_passes_over_class_token_and_patches(backbone, batch):
    found = backbone.encode(batch, windows(2)).extra["windows", 2]
    assert found.shape == (3, (backbone.grid - 1) ** 2, backbone.dim)
    trunk, column, row = backbone.visual.trunk, 5, 9
    with torch.no_grad():
        tokens = trunk._pos_embed(trunk.patch_embed(batch))
        places = [0] + [1 + r * backbone.grid + c for r in (row, row + 1) for c in (column, column + 1)]
        one = backbone.visual.head(trunk.norm(trunk.blocks(tokens[:, places]))[:, 0])
    assert torch.allclose(found[:, row * (backbone.grid - 1) + column], F.normalize(one, dim=-1), atol=1e-5)
    with pytest.raises(ValueError, match="does not fit a grid"):
        backbone.encode(batch, windows(99))


@pytest.mark.parametrize("which", ["timm", "open_clip"])
def test_value_attention_is_a_second_path_without_feed_forward(which, backbone, clip_vit):
    model = backbone if which == "timm" else clip_vit
    image = torch.rand(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))
    blocks = model.visual.trunk.blocks if which == "timm" else model.visual.transformer.resblocks
    with torch.no_grad():
        x = model._embed(image)
        for block in blocks[:-1]:
            x = block(x)
        block, out = blocks[-1], torch.zeros_like(x)
        normed = block.norm1(x) if which == "timm" else block.ln_1(x)
        weight = block.attn.qkv.weight if which == "timm" else block.attn.in_proj_weight
        bias = block.attn.qkv.bias if which == "timm" else block.attn.in_proj_bias
        width, heads = x.shape[-1], block.attn.num_heads
        value = normed @ weight[2 * width :].T + bias[2 * width :]
        for h in range(heads):
            v = value[..., h * width // heads : (h + 1) * width // heads]
            out[..., h * width // heads : (h + 1) * width // heads] = (
                torch.softmax(v @ v.transpose(1, 2) / (width // heads) ** 0.5, -1) @ v
            )
        project = block.attn.proj if which == "timm" else block.attn.out_proj
        norm = model.visual.trunk.norm if which == "timm" else model.visual.ln_post
        expected = norm(x + project(out))[:, 1:]
    assert torch.allclose(model.encode_value_attention(image, 1), expected, atol=1e-4)
    assert not torch.allclose(model.encode_value_attention(image, 2), expected, atol=1e-2)
    with pytest.raises(ValueError, match="do not fit"):
        model.encode_value_attention(image, len(blocks) + 1)


def test_prompt_embeddings_are_winclips(backbone):
    """Templates averaged un-normalised, then normalised."""
    texts = [t.format("flawless bolt") for t in TEMPLATES]
    expected = F.normalize(backbone.encode_text(texts, normalize=False).mean(0), dim=-1)
    assert len(TEMPLATES) == 22
    assert torch.allclose(scoring.embed_prompts(backbone, ["flawless bolt"])[0], expected, atol=1e-5)


def test_text_embeddings_do_not_depend_on_the_batch(backbone):
    texts = ["a bolt", "a photo of a bolt with a long thin scratch across its shiny head", "crack"]
    together = backbone.encode_text(texts)
    apart = torch.cat([backbone.encode_text([t]) for t in texts])
    assert torch.allclose(together, apart, atol=1e-5)


def test_readings_return_weights_that_sum_to_one(backbone, batch, ensemble):
    image = backbone.encode(batch).image
    for name, reading in scoring.READINGS.items():
        for weights, prompts in zip(reading(image, ensemble), (ensemble.normal, ensemble.abnormal), strict=True):
            assert weights.shape == (3, len(prompts)), name
            assert torch.allclose(weights.sum(1), torch.ones(3), atol=1e-5) and (weights >= 0).all(), name
    with pytest.raises(ValueError, match="unknown reading"):
        scoring.adapt(image, ensemble, "nothing")


def _plane(normal, abnormal):
    """An ensemble in the plane: the axis is x, prompts are given by their angle from the y axis in degrees."""

    def unit(angles):
        radians = torch.deg2rad(torch.tensor(angles))
        return torch.stack([radians.sin(), radians.cos()], 1)

    names = [tuple(f"{a:g}" for a in side) for side in (normal, abnormal)]
    middle = torch.zeros(2)
    return scoring.PromptEnsemble(*names, unit(normal), unit(abnormal), torch.tensor([1.0, 0.0]), middle)


def test_anchor_drops_exactly_the_prompts_on_the_wrong_side():
    image = torch.tensor([[0.0, 1.0]])
    w_normal, w_abnormal = scoring.anchor(image, _plane([-20.0, -10.0, 15.0], [30.0, -5.0]))
    assert w_normal[0].tolist() == [0.5, 0.5, 0.0] and w_abnormal[0].tolist() == [1.0, 0.0]
    w_normal, _ = scoring.anchor(image, _plane([10.0, 20.0, 30.0, 40.0], [50.0]))
    assert w_normal[0].tolist() == pytest.approx(
        [1 / 3, 1 / 3, 1 / 3, 0.0]
    )  # an empty side keeps its least wrong prompts


def test_overlap_drops_exactly_the_interval_intersection():
    ensemble = _plane([-40.0, -20.0, 10.0], [5.0, 30.0])
    image = torch.tensor([[0.0, 1.0]])  # similarities: normal .77 .94 .98, abnormal .996 .87; overlap [.87, .98]
    w_normal, w_abnormal = scoring.overlap(image, ensemble)
    assert w_normal[0].tolist() == [1.0, 0.0, 0.0] and w_abnormal[0].tolist() == [1.0, 0.0]


def test_salience_prefers_what_the_image_shows():
    ensemble = _plane([-20.0], [10.0, 60.0])
    image = torch.tensor([[np.sin(1.0), np.cos(1.0)]], dtype=torch.float32)
    weights = scoring.salience(image, ensemble)[1][0]
    expected = torch.softmax(image @ ensemble.t_abnormal.T / scoring.SALIENCE_TEMPERATURE, 1)[0]
    assert torch.allclose(weights, expected) and weights[1] > weights[0]


def test_top_half_keeps_the_more_similar_half_of_the_prompts_on_their_side():
    ensemble = _plane([-50.0, -30.0, -20.0, 40.0], [20.0, 60.0, 80.0])
    w_normal, w_abnormal = scoring.top_half(torch.tensor([[0.0, 1.0]]), ensemble)
    assert w_normal[0].tolist() == [0.0, 0.5, 0.5, 0.0]  # two of three; the fourth is on the wrong side
    assert w_abnormal[0].tolist() == [0.5, 0.5, 0.0]


def test_margin_prefers_a_prompt_that_the_other_side_does_not_say():
    ensemble = _plane([-60.0, 28.0], [30.0, 70.0])
    image = torch.tensor([[np.sin(0.85), np.cos(0.85)]], dtype=torch.float32)  # 49 degrees, between the abnormal ones
    weights = scoring.margin(image, ensemble)[1][0]
    s, opposite = (image @ ensemble.t_abnormal.T)[0], (image @ ensemble.t_normal.T)[0, 1]
    expected = torch.softmax((s - opposite) / scoring.SALIENCE_TEMPERATURE, 0)  # both are nearest to the second
    assert torch.allclose(weights, expected)
    far = scoring.margin(image, _plane([-60.0, 30.0], [30.0, 50.0]))[1][0]
    assert far[1] > far[0]  # the first says what a normal prompt says
    normal = torch.tensor(
        [[np.sin(-0.7), np.cos(-0.7)]], dtype=torch.float32
    )  # -40 degrees: nothing abnormal fits well
    assert scoring.margin(normal, ensemble)[1][0].argmax() == 0  # so there the ambiguous prompt loses least


def test_typical_follows_the_axis_and_ignores_the_image():
    weights = scoring.typical(torch.eye(2), _plane([-60.0, -10.0], [20.0, -20.0]))[1]
    assert torch.equal(weights[0], weights[1]) and weights[0, 0] > 0.99


def test_anomaly_score_is_the_softmax_of_two_cosines():
    generator = torch.Generator().manual_seed(0)
    z, n, a = (F.normalize(torch.randn(4, 8, generator=generator), dim=-1) for _ in range(3))
    expected = torch.softmax(torch.stack([(z * n).sum(1), (z * a).sum(1)], 1) / 0.07, 1)[:, 1]
    assert torch.allclose(scoring.anomaly_score(z, n, a), expected, atol=1e-6)
    assert torch.allclose(scoring.anomaly_score(z[:, None], n, a)[:, 0], expected, atol=1e-6)


def test_an_empty_side_is_refused(backbone):
    with pytest.raises(ValueError, match="each side needs one"):
        scoring.build_ensemble(backbone, "bolt", [], ["damaged bolt"])


def test_harmonic_mean_over_covering_windows():
    scores = torch.rand(2, 9, generator=torch.Generator().manual_seed(0)) + 0.1
    result = aligner.harmonic_mean(scores, 4, 2).view(2, 4, 4)
    for row in range(4):
        for column in range(4):
            covering = [r * 3 + c for r in range(3) for c in range(3) if r <= row <= r + 1 and c <= column <= c + 1]
            expected = len(covering) / (1 / scores[:, covering]).sum(1)
            assert torch.allclose(result[:, row, column], expected)


class _LinearWorld:
    """A backbone whose windows really are a linear function of their mean patch token."""

    grid, width, dim, name = 6, 5, 3, "linear"

    def __init__(self):
        self.truth = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))

    def encode(self, patches, k=2):
        found = patches[:, encoded_module.window_indices(self.grid, k)].mean(2) @ self.truth[:-1] + self.truth[-1]
        return encoded_module.Encoded(None, patches, {("windows", k): found})


def test_the_aligner_finds_a_linear_alignment_and_survives_a_file(tmp_path):
    world = _LinearWorld()
    parts = [world.encode(torch.randn(4, 36, 5, generator=torch.Generator().manual_seed(i))) for i in range(3)]
    fitted = aligner.Aligner.fit(world, parts, k=2, ridge=1e-9)
    assert torch.allclose(fitted.matrix, world.truth, atol=1e-4)
    fitted.save(tmp_path / "a.safetensors", note="test")
    assert torch.equal(aligner.Aligner.load(tmp_path / "a.safetensors").matrix, fitted.matrix)
    with pytest.raises(ValueError, match="at least one image"):
        aligner.Aligner.fit(world, [])


@pytest.mark.parametrize("method", list(METHODS))
def test_every_detector_keeps_the_interface(method, backbone, batch):
    profile = profiles.load_profile("mini")
    detector = methods.build_detector(method, profile, backbone)
    few = method in profile.few_shot and method not in profile.methods
    detector.prepare("bolt", detector.encode(batch[:1]) if few else None)
    assert json.dumps(detector.settings()) and isinstance(detector.sees, frozenset)
    scores, maps = detector.predict(batch)
    assert scores.shape == (3,) and maps.shape == (3, profile.map_size, profile.map_size)
    assert 0 <= scores.min() and scores.max() <= 1 and 0 <= maps.min() and maps.max() <= 1
    if not detector.transductive:
        alone = torch.cat([detector.predict(batch[i : i + 1])[0] for i in range(3)])
        assert torch.allclose(alone, scores, atol=1e-5)


def test_winclip_is_the_published_formula(backbone, batch):
    detector = WinClip(backbone, map_size=backbone.grid).prepare("bolt")
    scores, maps = detector.predict(batch)
    sides = []
    for states in (STATIC_NORMAL, STATIC_ABNORMAL):
        texts = [template.format(state.format("bolt")) for state in states for template in TEMPLATES]
        sides.append(F.normalize(sum(backbone.encode_text(texts, normalize=False)), dim=-1)[None])
    image = scoring.anomaly_score(backbone.encode(batch).image, *(t.expand(3, -1) for t in sides))
    extra = backbone.encode(batch, windows(2, 3)).extra
    parts = [
        aligner.harmonic_mean(scoring.anomaly_score(extra["windows", k], *sides), backbone.grid, k) for k in (2, 3)
    ]
    expected = 3 / (1 / image[:, None] + 1 / parts[0] + 1 / parts[1])
    assert torch.allclose(scores, image, atol=1e-5) and torch.allclose(maps.flatten(1), expected, atol=1e-4)


def test_an_explanation_names_the_heaviest_prompts_of_the_winning_side(backbone, batch):
    detector = methods.build_detector("alfa", profiles.load_profile("mini"), backbone).prepare("bolt")
    scores, _ = detector.predict(batch)
    weights = scoring.READINGS[detector.reading](backbone.encode(batch).image, detector.ensemble)
    encoded = backbone.encode(batch)
    for i, reasons in enumerate(detector.explain(encoded, top=2)):
        abnormal = bool(scores[i] >= 0.5)
        names = detector.ensemble.abnormal if abnormal else detector.ensemble.normal
        assert [r["prompt"] for r in reasons] == [names[j] for j in weights[abnormal][i].argsort(descending=True)[:2]]
        assert {r["side"] for r in reasons} == {"abnormal" if abnormal else "normal"}
        for r in reasons:
            assert r["map"].shape == (192, 192) and 0 <= r["map"].min() and r["map"].max() <= 1 and 0 <= r["score"] <= 1
    assert {r["side"] for (r, *_) in detector.explain(encoded, threshold=0.0)} == {"abnormal"}
    assert {r["side"] for (r, *_) in detector.explain(encoded, threshold=1.1)} == {"normal"}
    single = Alfa(backbone, detector.aligner, ["static"], "mean").prepare("bolt")
    single.ensemble = scoring.build_ensemble(backbone, "bolt", ["good bolt"], ["broken bolt"])
    scores, maps = single.predict(batch)
    for i, (reason,) in enumerate(single.explain(encoded)):  # one prompt a side: the explanation is the prediction
        assert reason["score"] == pytest.approx(float(scores[i]), abs=1e-5)
        assert np.allclose(reason["map"], maps[i], atol=1e-5)


def test_support_images_make_a_seen_image_normal(backbone, batch):
    aligned = methods.profile_aligner(profiles.load_profile("mini"), backbone)
    for words, few in ((WinClip(backbone), WinClipPlus(backbone)), (Alfa(backbone, aligned), Alfa(backbone, aligned))):
        zero, _ = words.prepare("bolt").predict(batch)
        scores, maps = few.prepare("bolt", few.encode(batch[:1])).predict(batch)
        assert torch.allclose(scores[0], zero[0] / 2, atol=1e-3)  # the support image itself is at distance zero
        assert scores[1] > zero[1] / 2 + 1e-3 and maps.max() <= 1


def test_methods_refuse_support_images_that_they_cannot_use_and_ask_for_those_they_need(backbone, batch):
    support = backbone.encode(batch[:1], windows(2, 3) + layers(1))
    for method in (ClipAC, WinClip, MuSc):
        with pytest.raises(ValueError, match="zero-shot|takes no support images"):
            method(backbone).prepare("bolt", support)
    for method in (WinClipPlus, PatchCore):
        with pytest.raises(ValueError, match="needs support images"):
            method(backbone).prepare("bolt")


def test_one_pass_gives_image_patches_windows_and_layers(backbone, batch):
    encoded = backbone.encode(batch, windows(2) + layers(1, 3))
    assert set(encoded.extra) == {("windows", 2), ("layers", 1), ("layers", 3)}
    assert torch.equal(encoded.extra["windows", 2], backbone.encode(batch, windows(2)).extra["windows", 2])
    tokens = backbone.visual.trunk.norm(encoded.extra["layers", 3])
    assert torch.allclose(tokens, encoded.patches, atol=1e-5)
    joined = encoded_module.Encoded.join([encoded[:1], encoded[1:]])
    assert torch.equal(joined.image, encoded.image) and torch.equal(
        joined.extra["layers", 1], encoded.extra["layers", 1]
    )
    with pytest.raises(ValueError, match="blocks 1 to 3; there is no block 4"):
        backbone.encode(batch, layers(4))


def test_the_committed_aligner_belongs_to_the_committed_weights(backbone, batch):
    """Fitted patches point where windows point: far better than raw ones."""
    fitted = methods.profile_aligner(profiles.load_profile("mini"), backbone)
    assert fitted.about["weights_sha256"] == sha256(embedded.WEIGHTS)
    patches = backbone.encode(batch).patches
    index = encoded_module.window_indices(backbone.grid, 2)
    truth = backbone.encode(batch, windows(2)).extra["windows", 2]
    aligned = F.normalize(fitted(patches)[:, index].mean(2), dim=-1)
    raw = F.normalize(backbone.project(patches)[:, index].mean(2), dim=-1)
    assert (aligned * truth).sum(-1).mean() > (raw * truth).sum(-1).mean() + 0.1
