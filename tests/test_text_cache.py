"""The kept text embeddings are never stale: whatever changes the text side is seen, however it is changed."""

import copy
import operator
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from modeling_denseclip import DenseCLIPForSemanticSegmentation, text_cache_denseclip
from modeling_denseclip.text_cache_denseclip import (
    TextEmbeddingCache,
    fingerprint_tensors,
    is_cacheable,
    odd_numbers,
    row_factors,
    sum_as_floats,
    sum_as_integers,
    sum_bits,
    weighted_sum,
)
from tests.tiny import tiny_model


@pytest.fixture
def model():
    return tiny_model("resnet").eval()


@pytest.fixture(params=["hash", "sum"])
def fingerprint(request, monkeypatch):
    """`fingerprint_tensors` by either checksum: that of CPUs, and that of other devices or without xxhash."""
    if request.param == "sum":
        monkeypatch.setattr(text_cache_denseclip, "xxhash", None)
    elif text_cache_denseclip.xxhash is None:
        pytest.skip("xxhash is not installed")
    return fingerprint_tensors


@torch.no_grad()
def embeddings(model):
    return model.get_text_embeddings()


def count_runs(model):
    """A list that grows by one with every run of the text tower."""
    runs = []
    compute = model.encode_class_names

    def counted():
        runs.append(1)
        return compute()

    model.encode_class_names = counted
    return runs


def assert_fresh(model):
    """What the model answers is what its weights give now."""
    with torch.no_grad():
        torch.testing.assert_close(model.get_text_embeddings(), model.encode_class_names(), rtol=0, atol=0)


def test_unchanged_weights_run_the_text_tower_once(model):
    runs = count_runs(model)
    pixel_values = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        first = model(pixel_values).logits
        for _ in range(3):
            torch.testing.assert_close(model(pixel_values).logits, first, rtol=0, atol=0)
    assert len(runs) == 1


def test_windows_share_one_run(model):
    runs = count_runs(model)
    with torch.no_grad():
        model(torch.rand(1, 3, 96, 160), inference_mode="slide", window_size=64, window_stride=48)
    assert len(runs) == 1


def weight(model):
    return model.text_encoder.encoder.layers[0].mlp.fc1.weight


EDITS = {
    "in place under no_grad": lambda model: weight(model).add_(0.1),
    "rows in another order, which have the same sum": lambda model: weight(model).copy_(weight(model).flip(0)),
    "one element behind autograd's back": lambda model: weight(model).data[3, 5].add_(0.5),
    "EMA, copied into .data": lambda model: weight(model).data.copy_(0.9 * weight(model).data + 0.01),
    "LoRA merge, as peft writes it": lambda model: setattr(weight(model), "data", weight(model).data + 0.05),
    "a parameter replaced": lambda model: setattr(
        model.text_encoder.encoder.layers[0].mlp.fc1, "weight", nn.Parameter(weight(model) * 1.1)
    ),
    "contexts": lambda model: model.prompts.contexts.neg_(),
    "text projection": lambda model: model.text_projection.weight.data.mul_(2.0),
    "embedding of a word in use": lambda model: (
        model.text_encoder.get_input_embeddings().weight.data[model.config.class_token_ids[0][1]].add_(1.0)
    ),
    "position embeddings": lambda model: model.text_encoder.embeddings.position_embedding.weight.data[10].add_(1.0),
    "load_state_dict": lambda model: model.load_state_dict(
        {name: value * 1.1 if value.is_floating_point() else value for name, value in model.state_dict().items()}
    ),
    "dtype": lambda model: model.to(torch.bfloat16),
    "contexts in another order behind autograd's back": lambda model: model.prompts.contexts.data.copy_(
        model.prompts.contexts.data.flip(1)
    ),
    "rows in another order behind autograd's back": lambda model: weight(model).data.copy_(
        weight(model).data.roll(1, 0)
    ),
    "columns in another order behind autograd's back": lambda model: weight(model).data.copy_(
        weight(model).data.flip(1)
    ),
    "two elements that change places": lambda model: swap(weight(model).data[3, 5:6], weight(model).data[7, 5:6]),
    "two weights that change places": lambda model: swap(
        model.text_encoder.encoder.layers[0].self_attn.q_proj.weight.data,
        model.text_encoder.encoder.layers[0].self_attn.k_proj.weight.data,
    ),
    "two layers that change places": lambda model: swap(
        *(layer.mlp.fc1.weight.data for layer in model.text_encoder.encoder.layers)
    ),
    "two equal and opposite changes": lambda model: (
        weight(model).data.view(torch.int32)[4, 2:4].add_(torch.tensor([1 << 20, -(1 << 20)]))
    ),
}


def swap(first, second):
    saved = first.clone()
    first.copy_(second)
    second.copy_(saved)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edits_are_seen(model, edit):
    before = embeddings(model).clone()
    with torch.no_grad():
        edit(model)
    after = embeddings(model)
    assert after.dtype != before.dtype or not torch.equal(before, after), (
        "the edit had no effect, the test proves nothing"
    )
    assert_fresh(model)


DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8)
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def orders(bits):
    """The same numbers elsewhere: (rows, columns) -> the same."""
    yield bits.flip(0)
    yield bits.flip(1)
    yield bits.roll(1, 0)
    yield bits.roll(1, 1)
    yield bits.flatten().roll(1).view_as(bits)
    for first, second in torch.randint(bits.numel(), (100, 2), generator=torch.Generator().manual_seed(1)).tolist():
        swapped = bits.flatten().clone()
        swapped[[first, second]] = swapped[[second, first]]
        yield swapped.view_as(bits)
    if bits.is_signed():
        yield -bits
        yield bits ^ torch.iinfo(bits.dtype).min  # of every number the sign, if they are floats
    for row in range(len(bits) - 1):  # of a rectangle, so that sums of rows and of columns are what they were
        rectangle = bits.clone()
        rectangle[row : row + 2, :2] = rectangle[row : row + 2, :2].flip(0, 1)
        yield rectangle


@pytest.mark.parametrize("shape", [(6, 8), (5, 7), (1, 12), (9, 1)])
@pytest.mark.parametrize("values", ["any", "powers of two"])  # of the latter only the highest bits differ
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_of_the_bits_is_seen_in_every_type(dtype, values, shape, fingerprint):
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randint(-3, 4, shape, generator=generator).double().exp2()
    if values == "any":
        tensor = torch.randn(shape, generator=generator, dtype=torch.float64) * 50
    tensor = tensor.to(dtype)
    bits = tensor.view(INTEGERS[tensor.element_size()])
    other = torch.ones_like(tensor)
    same = fingerprint([tensor, other])[1]
    assert fingerprint([tensor.clone(), other.clone()])[1] == same
    assert fingerprint([other, tensor])[1] != same
    changed = 0
    for order in orders(bits):
        if not torch.equal(order, bits):
            changed += 1
            assert fingerprint([order.view(dtype), other])[1] != same
    assert changed > 10


def test_tensors_of_any_layout_have_the_checksum_of_their_values(fingerprint):
    values = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    expected = fingerprint([values])[1]
    shifted = torch.zeros(61)[1:].view(6, 10).copy_(values)  # begins where no number of 64 bits may
    for other in (values.T.contiguous().T, values.repeat(1, 2)[:, :10], shifted):
        assert fingerprint([other])[1] == expected
    assert isinstance(fingerprint([torch.tensor(3.0), torch.empty(0), values])[1], int)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_edits_that_are_alike_in_all_columns_are_seen(dtype, fingerprint):
    """Times a power of two and turned signs change the bits of all numbers alike, so no column tells."""
    values = torch.randn(40, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = fingerprint([values])[1]
    draws = torch.Generator().manual_seed(1)
    for _ in range(300):
        rows = torch.randperm(40, generator=draws)[:3]
        powers = torch.tensor([4, 0.5, 2]) if torch.rand((), generator=draws) < 0.5 else torch.tensor([-1, -1, -1])
        edited = values.clone()
        edited[rows] *= powers[:, None].to(dtype)
        assert fingerprint([edited])[1] != before, (rows, powers)
    for first in range(39):  # neighbours: what factors in a row would miss
        edited = values.clone()
        edited[first] *= 4
        edited[first + 1] /= 2
        assert fingerprint([edited])[1] != before


@pytest.mark.parametrize("value", [-(2**15), 2**15 - 1])
def test_sums_of_bits_are_exact_up_to_the_most_rows(value):
    bits = torch.full((2048, 3), value, dtype=torch.int16)
    bits[2047, 1] -= 1 if value > 0 else -1
    factors = row_factors(2048).tolist()
    assert max(factors) < 2**26
    expected = [sum(map(operator.mul, factors, column)) for column in bits.T.tolist()]
    assert weighted_sum(bits).tolist() == expected
    wide = torch.zeros(5000, 1)
    before = sum_bits([wide])
    for row in (0, 2047, 2048, 4999):
        changed = wide.clone()
        changed[row] = 1.0
        assert sum_bits([changed]) != before


def test_where_xxhash_is_missing_edits_are_seen_too(model, monkeypatch):
    monkeypatch.setattr(text_cache_denseclip, "xxhash", None)
    runs = count_runs(model)
    before = [embeddings(model), embeddings(model)][0].clone()
    assert len(runs) == 1
    weight(model).data.copy_(weight(model).data.roll(1, 0))
    assert not torch.equal(embeddings(model), before)
    assert_fresh(model)


def test_an_edit_of_one_bit_by_numpy_is_seen(model):
    """No counter of PyTorch tells of it."""
    embeddings(model)
    runs = count_runs(model)
    versions = [parameter._version for parameter in model.parameters()]
    for parameter in (weight(model), model.prompts.contexts, model.text_projection.weight):
        for place in (0, -1):  # of the bytes
            parameter.detach().view(torch.uint8).numpy().flat[place] ^= 1
            embeddings(model)
    assert len(runs) == 6 and versions == [parameter._version for parameter in model.parameters()]


def test_rounds_of_dtypes_come_back(model):
    before = embeddings(model).clone()
    half = embeddings(model.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    back = embeddings(model.to(torch.float32))
    assert back.dtype == torch.float32
    # Weights were rounded on the way, so the old entry would be wrong.
    assert not torch.equal(before, back)
    assert_fresh(model)


def test_a_training_step_is_seen(model):
    before = embeddings(model).clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    model(torch.rand(2, 3, 64, 64), labels=torch.zeros(2, 64, 64, dtype=torch.long)).loss.backward()
    optimizer.step()
    model.eval()
    assert not torch.equal(before, embeddings(model))
    assert_fresh(model)


def test_fused_and_foreach_optimizers_are_seen(model):
    for options in ({"foreach": True}, {"fused": True}):
        before = embeddings(model).clone()
        model.zero_grad()
        model(torch.rand(2, 3, 64, 64), labels=torch.zeros(2, 64, 64, dtype=torch.long)).loss.backward()
        torch.optim.AdamW(model.parameters(), lr=1e-2, **options).step()
        assert not torch.equal(before, embeddings(model)), options
        assert_fresh(model)


def test_new_class_names_are_seen(model, tiny_tokenizer):
    before = embeddings(model).clone()
    names = list(reversed(model.config.class_names))
    model.set_class_names(names, tokenizer=tiny_tokenizer)
    torch.testing.assert_close(embeddings(model), before.flip(0))
    model.set_class_names(["zebra", *names[1:]], tokenizer=tiny_tokenizer)
    assert not torch.allclose(embeddings(model)[0], before.flip(0)[0])
    assert_fresh(model)


def test_class_names_in_another_order_are_seen(model, tiny_tokenizer):
    """Names of one token each: token ids and places have the same sums in any order."""
    model.set_class_names(["person", "sky"], tokenizer=tiny_tokenizer)
    before = embeddings(model).clone()
    model.set_class_names(["sky", "person"], tokenizer=tiny_tokenizer)
    assert_fresh(model)
    torch.testing.assert_close(embeddings(model), before.flip(0))
    assert not torch.allclose(before[0], before[1])


def test_gradients_reach_contexts_and_tower_unless_frozen(model):
    embeddings(model)  # an entry without a graph is there
    model(torch.rand(1, 3, 64, 64)).logits.sum().backward()
    assert model.prompts.contexts.grad.abs().sum() > 0
    assert weight(model).grad.abs().sum() > 0

    runs = count_runs(model)
    for module in (model.prompts, model.text_encoder, model.text_projection):
        module.requires_grad_(False)
    model.zero_grad()
    for _ in range(2):
        model(torch.rand(1, 3, 64, 64)).logits.sum().backward()
    assert len(runs) <= 1, "a frozen text side was run again"
    assert model.context_decoder.gamma.grad is not None


def test_an_entry_made_in_inference_mode_serves_no_training(model):
    with torch.inference_mode():
        model(torch.rand(1, 3, 64, 64))
    for module in (model.prompts, model.text_encoder, model.text_projection):
        module.requires_grad_(False)
    model(torch.rand(1, 3, 64, 64)).logits.sum().backward()  # would raise on an inference tensor


def test_autocast_has_its_own_entry(model):
    full = embeddings(model).clone()
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            assert_fresh(model)
    torch.testing.assert_close(embeddings(model), full, rtol=0, atol=0)


def test_attention_implementation_is_seen(model):
    runs = count_runs(model)
    embeddings(model)
    model.set_attn_implementation("eager")
    embeddings(model)
    assert len(runs) == 2


def test_copies_have_their_own(model):
    first = embeddings(model).clone()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        weight(twin).data.mul_(1.5)
    assert not torch.equal(embeddings(twin), first)
    torch.testing.assert_close(embeddings(model), first, rtol=0, atol=0)
    assert_fresh(twin)


class Doubled(nn.Module):
    """An adapter with a switch, as peft has."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.active = True

    def forward(self, hidden_states):
        return self.inner(hidden_states) * (2 if self.active else 1)


def test_foreign_modules_and_hooks_are_not_trusted(model):
    layer = model.text_encoder.encoder.layers[0]
    before = embeddings(model).clone()
    layer.mlp = Doubled(layer.mlp).eval()
    assert not torch.equal(embeddings(model), before)
    layer.mlp.active = False
    torch.testing.assert_close(embeddings(model), before, rtol=0, atol=0)
    layer.mlp = layer.mlp.inner

    handle = layer.register_forward_hook(lambda module, args, output: output * 0)
    assert not torch.equal(embeddings(model), before)
    handle.remove()
    torch.testing.assert_close(embeddings(model), before, rtol=0, atol=0)


def test_loading_another_checkpoint_is_seen(model, tmp_path):
    other = tiny_model("resnet", seed=1).eval()
    other.save_pretrained(tmp_path)
    loaded = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path)
    torch.testing.assert_close(embeddings(loaded), embeddings(other), rtol=0, atol=0)
    assert not torch.equal(embeddings(loaded), embeddings(model))


def test_threads_share_one_model(model):
    """Each mode has an entry of its own, and they replace each other all the time."""
    switch_interval = sys.getswitchinterval()
    modes = [
        torch.no_grad,
        torch.inference_mode,
        # Not another type besides: torch keeps the weights that it casts for all threads together.
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.enable_grad,
    ]

    def ask(model, mode):
        with torch.no_grad(), mode():
            return model.get_text_embeddings().detach().clone()

    expected = [ask(tiny_model("resnet").eval(), mode) for mode in modes]
    assert not torch.equal(expected[0], expected[2].float())

    def ask_again(index):
        start.wait()
        return [ask(model, modes[index % len(modes)]) for _ in range(20)]

    start = threading.Barrier(8)
    try:
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask_again, range(8)))
    finally:
        sys.setswitchinterval(switch_interval)
    for index, given in enumerate(answers):
        assert len(given) == 20
        for answer in given:
            torch.testing.assert_close(answer, expected[index % len(modes)], rtol=0, atol=0)


@pytest.mark.parametrize("trained", ["contexts", "tower"])
def test_one_trained_part_is_enough_for_gradients(model, trained):
    embeddings(model)  # an entry without a graph is there
    model.prompts.requires_grad_(trained == "contexts")
    for module in (model.text_encoder, model.text_projection):
        module.requires_grad_(trained == "tower")
    model(torch.rand(1, 3, 64, 64)).logits.sum().backward()
    assert (model.prompts.contexts.grad is not None) == (trained == "contexts")
    assert (weight(model).grad is not None) == (trained == "tower")


def test_pickled_it_is_empty():
    cache = TextEmbeddingCache()
    tensors = [torch.ones(2)]
    assert cache.get(tensors, (), lambda: torch.zeros(1)) == 0
    assert cache.get(tensors, (), lambda: torch.ones(1)) == 0
    for twin in (pickle.loads(pickle.dumps(cache)), copy.deepcopy(cache)):
        assert isinstance(twin, TextEmbeddingCache)
        assert twin.get(tensors, (), lambda: torch.ones(1)) == 1


class ForeignParameter(nn.Parameter):
    """As libraries of quantisation have: what it holds is not what it stands for."""


def test_weights_that_cannot_be_read_are_not_trusted(monkeypatch):
    assert is_cacheable(nn.Linear(2, 2).eval())
    assert not is_cacheable(nn.Linear(2, 2).train())
    foreign, wide = nn.Linear(2, 2).eval(), nn.Linear(2, 2, dtype=torch.complex128).eval()
    foreign.weight = ForeignParameter(torch.ones(2, 2))
    for module in (foreign, wide, nn.Linear(2, 2, device="meta").eval()):
        assert not is_cacheable(module) and not is_cacheable(nn.Linear(2, 2).eval(), module)
    # A compiled graph keeps what it was compiled with.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not is_cacheable(nn.Linear(2, 2).eval())


def test_versions_and_kinds_are_told_beside_the_checksum():
    """Where the bits are equal: edited and put back, of another type, of another shape."""
    values = torch.arange(6.0).reshape(2, 3)
    kinds, checksum = fingerprint_tensors([values])
    assert fingerprint_tensors([values.view(torch.int32)]) != (kinds, checksum)
    assert fingerprint_tensors([values[None]])[0] != kinds
    values.add_(1).sub_(1)
    edited, same = fingerprint_tensors([values])
    assert edited != kinds and same == checksum


def test_rows_are_summed_exactly():
    bits = torch.randint(-(2**15), 2**15, (7, 5), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    factors = row_factors(7).tolist()
    columns = bits.T.tolist()
    expected = [sum(factor * bit for factor, bit in zip(factors, column, strict=True)) for column in columns]
    assert weighted_sum(bits).tolist() == expected
    for sum_rows in (sum_as_floats, sum_as_integers):  # of a CPU, and of other devices
        assert sum_rows(bits, row_factors(7)).tolist() == expected


def test_factors_are_odd_and_without_a_pattern():
    for seed in range(3):
        numbers = odd_numbers(1000, 2**20, seed)
        assert (numbers % 2 == 1).all() and numbers.unique().numel() > 990 and numbers.max() < 2**20 + 1
        assert (numbers.diff() > 0).float().mean().sub(0.5).abs() < 0.1
    assert odd_numbers(1000, 2**20, 0).tolist() != odd_numbers(1000, 2**20, 1).tolist()


def test_a_replica_of_data_parallel_is_not_trusted():
    module = nn.Sequential(nn.Linear(2, 2)).eval()
    module[0]._is_replica = True  # it lists no parameters, so that none of them would be looked at
    assert not is_cacheable(module)


def test_modules_of_others_are_not_trusted():
    class Foreign(nn.Module):
        pass

    assert not is_cacheable(nn.Sequential(Foreign()).eval())


@pytest.mark.parametrize("device, expected", [("cpu", "sum_as_floats"), ("meta", "sum_as_integers")])
def test_floats_sum_on_a_cpu_and_integers_elsewhere(device, expected, monkeypatch):
    called = []
    for name in ("sum_as_floats", "sum_as_integers"):
        monkeypatch.setattr(text_cache_denseclip, name, lambda *words, name=name: called.append((name, *words)))
    bits = torch.zeros(7, 5, dtype=torch.int16, device=device)
    weighted_sum(bits)
    ((name, given, factors),) = called
    assert name == expected and given is bits and factors.device.type == device and len(factors) == 7
