"""PASTE on one pair, in an environment of its own: `python paste_fit.py A.h5ad B.h5ad PLAN.npz RESULT.json LIMIT_GB`.

Imports nothing of this repository: paste-bio 1.4.0 needs POT 0.9.0, numpy < 2 and scipy < 1.12.
"""

import json
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    """Align with PASTE's defaults; write the plan and what it took."""
    source, target, plan, result, limit = sys.argv[1:]
    size = int(float(limit) * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    import anndata
    import numpy as np
    import paste
    import scipy.sparse as sp

    slices = [anndata.read_h5ad(path) for path in (source, target)]
    start = time.perf_counter()
    weights = paste.pairwise_align(*slices)
    seconds = time.perf_counter() - start
    sparse = sp.csr_matrix(weights)
    parts = {"data": sparse.data, "indices": sparse.indices, "indptr": sparse.indptr, "shape": np.array(sparse.shape)}
    np.savez(plan, **parts)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    Path(result).write_text(json.dumps({"seconds": seconds, "peak_rss_mib": peak}), encoding="utf-8")


if __name__ == "__main__":
    main()
