"""What is read from a compiled program's text, and what chips and slices are called."""

import pytest

from ssldiff_jax.train import chips, hlo_stats

HLO = """HloModule jit_step, is_scheduled=true, num_partitions=12
  %ag = bf16[64,192]{1,0:T(8,128)} all-gather(%p), replica_groups=[3,4]<=[12], dimensions={1}
  %s = (f32[8,48], f32[32,48]) all-gather-start(%q), dimensions={0}, replica_groups=[2,6]<=[6,2]T
  %agd = f32[32,48]{1,0} all-gather-done(%s)
  %ar = (f32[10]{0}, bf16[2,3]{1,0}) all-reduce(%a, %b), replica_groups={}, to_apply=%add
  %cps = (bf16[3,48]{1,0}, bf16[3,48]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x)
  %rs = f32[16]{0} reduce-scatter(%y), replica_groups={{0,1,2},{3,4,5}}, dimensions={0}
  %plain = f32[9]{0} add(%y, %y), metadata={op_name="all-gather(looks like one)"}
"""


def test_collectives_are_those_of_the_text():
    found = hlo_stats.collectives(HLO)
    assert [c.kind for c in found] == [
        "all-gather", "all-gather", "all-reduce", "collective-permute", "reduce-scatter"
    ]  # fmt: skip
    assert [c.num_bytes for c in found] == [64 * 192 * 2, 32 * 48 * 4, 40 + 12, 3 * 48 * 2, 64]
    assert [c.dimension for c in found] == [1, 0, None, None, 0]


def test_what_is_sent_depends_on_how_many_share_in_it():
    found = hlo_stats.collectives(HLO)
    assert [c.devices for c in found] == [4, 6, 12, 12, 3]
    # Of what is gathered all but the own part; of a sum, its part comes from each of the others.
    sent = [64 * 144 * 2, 32 * 40 * 4, 2 * 11 / 12 * (40 + 12), 3 * 48 * 2, 2 * 64]
    assert [c.sent_bytes for c in found] == pytest.approx(sent)


SCATTER = """
%all-reduce-scatter.3 (input: f32[98304,128]) -> f32[24640,128] {
  %input = f32[98304,128]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = f32[98560,128]{1,0} all-reduce(%pad), replica_groups=[8,4]<=[32], to_apply=%add
  ROOT %part = f32[24640,128]{1,0} dynamic-slice(%all-reduce.1, %m, %c), dynamic_slice_sizes={24640}
}

ENTRY %main (p: f32[98304,128]) -> f32[] {
  %rest = f32[12]{0} all-reduce(%q), channel_id=3, to_apply=%region_1
}
"""


def test_a_scatter_that_a_tpu_writes_as_a_sum_is_one():
    found = hlo_stats.collectives(SCATTER)
    assert [c.kind for c in found] == ["reduce-scatter", "all-reduce"]
    assert [c.num_bytes for c in found] == [24640 * 128 * 4, 48]
    assert [c.devices for c in found] == [4, 1]
    assert found[0].sent_bytes == 3 * 24640 * 128 * 4


def test_operations_are_those_that_do_something():
    entry = """
HloModule jit_f

%fused (p: f32[4]) -> f32[4] {
  ROOT %add = f32[4]{0} add(%p, %p)
}

ENTRY %main (p: f32[4], q: f32[4]) -> (f32[4], f32[]) {
  %p = f32[4]{0} parameter(0)
  %one = f32[] constant(1)
  %f.1 = f32[4]{0} fusion(%p), kind=kLoop, calls=%fused
  %two = (f32[4]{0}, u8[128]{0}) custom-call(%f.1, %q), custom_call_target="__cublas$lt$matmul"
  %first = f32[4]{0} get-tuple-element(%two), index=0
  %flat = f32[4]{0} bitcast(%first)
  ROOT %all = (f32[4]{0}, f32[]) tuple(%flat, %one)
}
"""
    assert hlo_stats.num_operations(entry) == 2
    assert hlo_stats.num_operations("HloModule empty") == 0


def test_only_a_gathered_batch_is_one():
    large = "%a = f32[{},1024]{{1,0}} all-gather(%p), channel_id=1, dimensions={{{}}}"
    of = lambda rows, dimension: hlo_stats.gathers_of_batch(
        hlo_stats.collectives(large.format(rows, dimension)), 512
    )
    assert len(of(512, 0)) == 1
    assert len(of(1024, 0)) == 1  # with what belongs to every example beside it
    assert not of(512, 1)  # parameters, by their columns
    assert not of(500, 0)
    parameters = "%a = bf16[1048576]{0} all-gather(%p), channel_id=1, dimensions={0}"
    assert not hlo_stats.gathers_of_batch(hlo_stats.collectives(parameters), 512)


@pytest.mark.parametrize(
    ("topology", "name"),
    [
        ("v5e:2x2", "v5litepod-4"),
        ("v5e:16x16", "v5litepod-256"),
        ("v5p:2x4x4", "v5p-64"),
        ("v4:2x2x1", "v4-8"),
        ("v6e:4x4", "v6e-16"),
    ],
)
def test_slices_are_ordered_by_these_names(topology, name):
    found = chips.Slice.named(topology)
    assert found.platform == "tpu"
    assert found.accelerator_type == name


def test_gpus_are_counted():
    found = chips.Slice.named("h200:8")
    assert (found.platform, found.shape) == ("gpu", (8,))
    assert 'device_description_str: "NVIDIA H200"' in found.gpu_target


@pytest.mark.parametrize("topology", ["v5e", "v5e-16", "h200:8x1", "v5e:16", "b200:8"])
def test_what_is_no_topology_is_refused_by_name(topology):
    with pytest.raises(ValueError, match="must read generation:chips") as caught:
        chips.Slice.named(topology)
    assert repr(topology) in str(caught.value)


def test_the_chip_of_a_device_is_the_longest_name_that_fits():
    assert chips.chip("TPU v5 lite").memory == 16 * 2**30
    assert chips.chip("TPU v5p").memory == 95 * 2**30
    assert chips.chip("NVIDIA H200 141GB HBM3e").flops == 989e12
    assert chips.chip("cpu") is None
