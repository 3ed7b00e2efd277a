"""``torch.linalg.pinv(t[0], rtol=None)`` of DTensors (R) differs from that of plain tensors.

The last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone."""

import datetime
import tempfile

import torch
import torch.distributed as dist
from torch.distributed._tensor import DTensor, Partial, Replicate, Shard

RANKS, LIMIT = 2, datetime.timedelta(seconds=20)
WHOLE = [torch.tensor([[[(-0.1683197021484375+0.061748504638671875j), (0.7823343276977539-0.6745500564575195j), (0.7239160537719727+0.30182647705078125j), (-0.3313484191894531+0.20311260223388672j), (-0.3601236343383789+0.6506271362304688j)], [(-0.3722066879272461-0.5241079330444336j), (-0.7501535415649414+0.3357048034667969j), (-0.46588706970214844+0.10282516479492188j), (0.20291900634765625+0.03256511688232422j), (-0.17604541778564453+0.42288875579833984j)], [(-0.12318992614746094+0.6199865341186523j), (0.758244514465332-0.00614166259765625j), (-0.3551359176635742+0.19182395935058594j), (-0.5379047393798828-0.8488302230834961j), (0.6665716171264648-0.04697132110595703j)], [(-0.24369239807128906+0.11322498321533203j), (-0.5885839462280273+0.7674236297607422j), (0.25908756256103516-0.8171443939208984j), (0.6808633804321289-0.7328424453735352j), (0.8846855163574219+0.00518035888671875j)], [(-0.40397071838378906-0.32443809509277344j), (0.8510417938232422-0.47437381744384766j), (-0.8216514587402344-0.1420602798461914j), (-0.5514612197875977+0.6359720230102539j), (-0.20767784118652344-0.3509235382080078j)]], [[(-0.2819833755493164+0.7220277786254883j), (-0.7560825347900391+0.5700874328613281j), (-0.33586883544921875-0.20808696746826172j), (-0.32361888885498047-0.8662853240966797j), (0.46407318115234375+0.6586999893188477j)], [(0.17379188537597656+0.8523244857788086j), (-0.07674217224121094+0.05971813201904297j), (-0.8736047744750977+0.39072227478027344j), (-0.7671470642089844-0.42250919342041016j), (0.6520185470581055+0.3389472961425781j)], [(0.33032989501953125+0.7229347229003906j), (0.8599166870117188+0.19248580932617188j), (0.039101600646972656+0.28440380096435547j), (0.8266286849975586-0.4836597442626953j), (-0.37750911712646484-0.10880184173583984j)], [(-0.6462373733520508+0.4198780059814453j), (0.7887382507324219-0.5466575622558594j), (-0.0037584304809570312-0.030571937561035156j), (-0.771540641784668+0.42447471618652344j), (-0.3615694046020508-0.15196704864501953j)], [(0.4882946014404297+0.8629884719848633j), (-0.23762989044189453+0.673527717590332j), (0.024286270141601562-0.5906333923339844j), (-0.2173595428466797-0.724639892578125j), (-0.7331047058105469+0.6493644714355469j)]]], dtype=torch.complex128)]
PARTS = [[WHOLE[0].clone() for _ in range(RANKS)]]
PLACEMENTS = [[Replicate()]]


def compute(t):
    made = torch.linalg.pinv(t[0], rtol=None)
    made = list(made) if isinstance(made, (tuple, list)) else [made]
    found = {f"result {n}": torch.as_tensor(full(one)).detach() for n, one in enumerate(made)}
    return found


def full(t):
    return t.full_tensor() if isinstance(t, DTensor) else t


def expected(rank):
    return compute([w.clone() for w in WHOLE])


def distributed(rank):
    mesh = dist.init_device_mesh("cpu", (2,), mesh_dim_names=('a',))
    words = [{"run_check": False, "shape": w.shape, "stride": w.stride()} for w in WHOLE]
    return compute([DTensor.from_local(p[rank], mesh, h, **w) for p, h, w in zip(PARTS, PLACEMENTS, words)])


def differ(found, right):
    for name, value in right.items():
        one, other = found[name].resolve_conj(), value.resolve_conj()
        alike = one.shape == other.shape and one.dtype == other.dtype
        off = ~torch.isclose(one, other, 1e-5, 1e-5, equal_nan=True) if alike else torch.ones(1)
        for n in off.flatten().nonzero().flatten().tolist():
            seen = [f"{t.dtype} {list(t.shape)} {t.flatten()[n:][:3].tolist()}" for t in (one, other)]
            return f"{name}: {seen[0]}, not {seen[1]}, from element {n} on"
    return ""


def run(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", LIMIT, RANKS, rank)
    dist.barrier()  # A rank that leaves early would end the others' connecting.
    try:
        said = differ(distributed(rank), expected(rank))
        dist.barrier()
    except Exception as error:
        said = f"raised {type(error).__name__}: {error}".splitlines()[0]
    torch.save(said, f"{folder}/{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        started = torch.multiprocessing.start_processes(run, (folder,), RANKS, False, start_method="fork")
        died = [f"died: {one.exitcode}" for one in started.processes if one.join() or one.exitcode not in (0, 1, -9)]
        said = died or [torch.load(f"{folder}/{rank}") for rank in range(RANKS)]
    seen = sorted(("Timed out" in words or "onnection" in words, words) for words in said if words)
    wrong = any(seen) and (seen[-1][0] or not all(words.startswith("raised") for words in said))
    print(f"{'defect' if wrong else 'right'}: torch {torch.__version__}: {seen[0][1] if seen else 'the same'}")
    raise SystemExit(wrong)
