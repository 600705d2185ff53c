"""What the published code computed on small random weights, and our model built from the same weights."""

import copy
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation
from modeling_denseclip.checkpoint_formats_denseclip import convert_denseclip_state_dict, infer_denseclip_config
from modeling_denseclip.conversion_denseclip import load_exactly


CASES = ("denseclip-resnet", "denseclip-vit", "clip-fpn-resnet", "clip-fpn-vit")
FIXTURES = Path(__file__).parent / "fixtures"
# The whole arrays, where the checkout has them beside it.
REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"


@dataclass
class ParityCase:
    """
    Args:
        state_dict: Weights under the published names.
        fields: Fields of the config that the weights' shapes cannot show.
        inputs: Whole arrays that go in.
        expected: Arrays that came out, flat: all their values, or a sample of them.
        indices: Which values of the flat array are in `expected`; all of them where it has no entry.
        std: Standard deviation of each whole array.
        gradient_norms: Published parameter name -> norm of its gradient for the batch of size 0.
    """

    state_dict: dict[str, torch.Tensor]
    fields: dict
    inputs: dict[str, torch.Tensor]
    expected: dict[str, np.ndarray]
    indices: dict[str, np.ndarray]
    std: dict[str, float]
    gradient_norms: dict[str, float]

    def build_model(self) -> DenseCLIPForSemanticSegmentation:
        """Our model with these weights, in evaluation mode."""
        state_dict = convert_denseclip_state_dict(self.state_dict)
        inferred = infer_denseclip_config(state_dict)
        fields = dict(self.fields)
        for name in ("text_config", "vision_config"):
            if name in inferred:
                fields[name] = inferred[name] | fields.get(name, {})
        model = DenseCLIPForSemanticSegmentation(DenseCLIPConfig(**(inferred | fields)))
        load_exactly(model, state_dict)
        return model.eval()

    def error(self, name: str, values: torch.Tensor) -> float:
        """Largest difference to what the published code computed, relative to the array's standard deviation."""
        flat = values.detach().numpy().reshape(-1).astype(np.float64)
        expected = self.expected[name].astype(np.float64)
        if name in self.indices:
            flat = flat[self.indices[name]]
        assert flat.shape == expected.shape, f"{name}: {tuple(values.shape)} does not match the published array"
        return float(np.abs(flat - expected).max() / self.std[name])


def config_fields(published: dict, class_names: list[str], token_ids: np.ndarray | None) -> dict:
    """What `config.json` of a reference says and shapes do not."""
    config = published["config"]
    fields = {"id2label": dict(enumerate(class_names)), "inference_mode": config["test_cfg"]["mode"]}
    if fields["inference_mode"] == "slide":
        fields["window_size"] = config["test_cfg"]["crop_size"]
        fields["window_stride"] = config["test_cfg"]["stride"]
    if "out_indices" in config["backbone"]:
        fields["feature_layers"] = config["backbone"]["out_indices"]
        fields["vision_config"] = {"num_attention_heads": config["backbone"]["heads"]}
    if token_ids is not None:
        fields["text_config"] = {"num_attention_heads": config["text_encoder"]["transformer_heads"]}
        fields["context_decoder_num_attention_heads"] = config["context_decoder"]["transformer_heads"]
        # Padded with 0 after the end token, which has the largest id.
        fields["class_token_ids"] = [[int(i) for i in row[: row.argmax() + 1]] for row in token_ids]
    return fields


def load_reference(name: str) -> ParityCase:
    """The whole case from beside the checkout."""
    folder = REFERENCE / name
    checkpoint = torch.load(folder / "checkpoint.pth", weights_only=True)
    arrays = np.load(folder / "outputs.npz")
    published = json.loads((folder / "config.json").read_text())
    token_ids = arrays["texts"] if "texts" in arrays.files else None
    inputs = {key for key in arrays.files if key.startswith(("pixel_values", "labels", "tta_image"))}
    outputs = [key for key in arrays.files if key not in inputs and key != "texts"]
    return ParityCase(
        state_dict=checkpoint["state_dict"],
        fields=config_fields(published, list(checkpoint["meta"]["CLASSES"]), token_ids),
        inputs={key: torch.from_numpy(arrays[key]) for key in inputs},
        expected={key: arrays[key].reshape(-1) for key in outputs},
        indices={},
        std={key: float(arrays[key].astype(np.float64).std()) for key in outputs},
        gradient_norms=json.loads((folder / "gradient_norms.json").read_text()),
    )


def load_fixture(name: str) -> ParityCase:
    """The same case from the repository: two of three sizes, and a sample of each array."""
    return copy.deepcopy(_read_fixture(name))  # which may be changed


@lru_cache
def _read_fixture(name: str) -> ParityCase:
    arrays = np.load(FIXTURES / f"parity_{name}.npz")
    meta = json.loads(str(arrays["meta"]))
    groups: dict[str, dict] = {"state_dict": {}, "inputs": {}, "expected": {}, "indices": {}}
    for key in arrays.files:
        group, _, rest = key.partition("/")
        if group in groups:
            groups[group][rest] = arrays[key]
    return ParityCase(
        state_dict={key: torch.from_numpy(value) for key, value in groups["state_dict"].items()},
        fields=meta["fields"],
        inputs={key: torch.from_numpy(value) for key, value in groups["inputs"].items()},
        expected=groups["expected"],
        indices=groups["indices"],
        std=meta["std"],
        gradient_norms=meta["gradient_norms"],
    )
