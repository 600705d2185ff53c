"""Batch norm over two processes on CPUs, against batch norm on all of the images."""

import subprocess
from pathlib import Path

import torch
from torch import nn

from tests.tiny import tiny_model
from tests.warm import warm_python
from training.learning.batch_norm import CPUSyncBatchNorm, pretrained_batch_norms, synchronize_batch_norm


ROOT = Path(__file__).resolve().parents[1]
# Forks of one process, which has computed no gradients yet.
TWO_PROCESSES = """
import sys
import torch
from torch.multiprocessing import start_processes
from tests import test_batch_norm

arguments = torch.load(sys.argv[2])
start_processes(getattr(test_batch_norm, sys.argv[1]), arguments, nprocs=2, start_method="fork")
"""


def run_twice(function, *arguments, folder: Path):
    """`function(rank, *arguments)` of this module in two processes at a time."""
    torch.save(arguments, folder / "arguments.pt")
    words = ["-c", TWO_PROCESSES, function.__name__, str(folder / "arguments.pt")]
    subprocess.run([*warm_python(), *words], cwd=ROOT, check=True)


def _process(rank: int, store: str, images: torch.Tensor, weights: torch.Tensor, results: str):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = synchronize_batch_norm(make_model(), torch.device("cpu"))
    half = images.chunk(2)[rank].clone().requires_grad_()
    output = model(half)
    (output * weights.chunk(2)[rank]).sum().backward()
    torch.save((output.detach(), half.grad, model[1].weight.grad, model.state_dict()), f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


def _head_process(rank: int, store: str, maps: list[torch.Tensor], results: str):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    head = synchronize_batch_norm(make_head(), torch.device("cpu"))
    torch.save(head([level[rank : rank + 1] for level in maps]).detach(), f"{results}/head-{rank}.pt")
    torch.distributed.destroy_process_group()


def make_head():
    heads = {"decode_head_type": "upernet", "decode_head_dropout": 0.0, "auxiliary_head_hidden_size": 8}
    return tiny_model("resnet", use_language=False, **heads).decode_head.train()


def test_upernet_trains_on_one_image_of_each_of_two_processes(tmp_path):
    """Its pyramid pools to one value per channel and image, of which there are two all together."""
    torch.manual_seed(1)
    maps = [torch.randn(2, 32 << level, 16 >> level, 16 >> level) for level in range(4)]
    run_twice(_head_process, f"{tmp_path}/store", maps, str(tmp_path), folder=tmp_path)
    parts = torch.cat([torch.load(f"{tmp_path}/head-{rank}.pt") for rank in (0, 1)])
    torch.testing.assert_close(parts, make_head()(maps).detach(), rtol=1e-3, atol=1e-4)


def make_model():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    nn.init.uniform_(model[1].weight, 0.5, 2.0)
    return model


def test_two_processes_equal_batch_norm_on_all_images(tmp_path):
    torch.manual_seed(1)
    images, weights = 3 + 2 * torch.randn(4, 3, 5, 6), torch.randn(4, 4, 5, 6)
    run_twice(_process, f"{tmp_path}/store", images, weights, str(tmp_path), folder=tmp_path)

    torch.manual_seed(0)
    model = make_model()
    together = images.clone().requires_grad_()
    output = model(together)
    (output * weights).sum().backward()
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), output.detach())
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), together.grad)
    torch.testing.assert_close(parts[0][2] + parts[1][2], model[1].weight.grad)
    for name, tensor in model.state_dict().items():
        for part in parts:
            torch.testing.assert_close(part[3][name], tensor)


def test_on_gpus_it_is_torchs_own_and_names_stay():
    model = tiny_model("resnet")
    names = list(model.state_dict())
    converted = synchronize_batch_norm(model, torch.device("cuda"))
    norms = [module for module in converted.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(type(norm) is nn.SyncBatchNorm for norm in norms)
    assert list(converted.state_dict()) == names


def test_evaluation_needs_no_other_process():
    norm = CPUSyncBatchNorm(3).eval()
    images = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(norm(images), nn.BatchNorm2d(3).eval()(images))


def test_pretrained_norms_are_the_resnets():
    model = tiny_model("resnet")
    norms = pretrained_batch_norms(model)
    assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in model.image_encoder.modules()) > 10
    heads = [m for m in model.decode_head.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not {id(m) for m in heads} & {id(m) for m in norms}
