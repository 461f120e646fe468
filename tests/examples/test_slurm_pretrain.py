"""The scripts that train on a cluster, with a Slurm of a few lines: what they launch, and what they do when warned."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "examples" / "slurm"
PROGRAMS = {
    # a task on every node, at the same time; the worst exit code
    "srun": """
while [[ $1 == -* ]]; do shift; done
tasks=()
for ((i = 0; i < SLURM_JOB_NUM_NODES; i++)); do SLURM_NODEID=$i "$@" & tasks+=($!); done
code=0
for task in "${tasks[@]}"; do wait "$task" || code=$?; done
exit "$code"
""",
    # the launcher: says what it was called with; a signal takes it some time
    "accelerate": """
printf '%s\\n' "$@" > "launched-$SLURM_NODEID.tmp"
echo "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT $OMP_NUM_THREADS" > "environment-$SLURM_NODEID"
trap 'sleep 0.3; echo saved > "saved-$SLURM_NODEID"; exit 143' TERM
echo $$ > "pid-$SLURM_NODEID"
mv "launched-$SLURM_NODEID.tmp" "launched-$SLURM_NODEID"
while [[ -e wait ]]; do sleep 0.05; done
exit "$(cat code)"
""",
    "scontrol": """
if [[ $1 == show ]]; then printf 'node%s\\n' 7 8 9; else echo "$@" >> requeued; fi
""",
    "scancel": """
[[ $* == "--quiet --signal=TERM 4242" ]]
kill -TERM $(cat pid-*)
""",
}


@pytest.fixture
def submit(tmp_path):
    """Starts a script as Slurm does, in the test's folder."""
    for name, text in PROGRAMS.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/usr/bin/env bash\nset -euo pipefail{text}")
        file.chmod(0o755)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "code").write_text("0")

    def submit(script: str, *options: str, nodes: int, **more: str) -> subprocess.Popen[str]:
        job = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "4242",
            "SLURM_JOB_NODELIST": "node[7-9]",
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_GPUS_ON_NODE": "8",
            "SLURM_CPUS_PER_TASK": "64",
        }
        environment = {name: x for name, x in os.environ.items() if name != "OMP_NUM_THREADS"}
        return subprocess.Popen(
            ["bash", str(SLURM / script), *options],
            cwd=tmp_path,
            env=environment | job | more,
            stderr=subprocess.PIPE,
            text=True,
        )

    return submit


@pytest.mark.parametrize(("script", "nodes"), [("pretrain-1x8.sbatch", 1), ("pretrain-8x8.sbatch", 8)])
def test_each_node_launches_its_part_of_one_run(tmp_path, submit, script, nodes):
    headers = [line for line in (SLURM / script).read_text().splitlines() if line.startswith("#SBATCH")]
    assert f"#SBATCH --nodes={nodes}" in headers
    assert {"#SBATCH --gpus-per-node=8", "#SBATCH --signal=B:TERM@120", "#SBATCH --requeue"} <= set(headers)
    job = submit(script, "--recipe", "lit-filip", "--data", "my shards", nodes=nodes)
    assert job.communicate(timeout=60) == (None, "")
    assert job.returncode == 0
    assert not (tmp_path / "requeued").exists()
    for rank in range(nodes):
        line = (tmp_path / f"launched-{rank}").read_text().splitlines()
        assert line.pop(0) == "launch"
        said = launch_command_parser().parse_args(line)
        assert (said.machine_rank, said.num_machines, said.num_processes) == (rank, nodes, 8 * nodes)
        assert (said.main_process_ip, said.main_process_port) == ("node7", 24242)
        assert said.module
        assert said.training_script == "vlcli"
        options = ["pretrain", "--recipe", "lit-filip", "--data", "my shards", "--resume"]
        assert said.training_script_args == options
        assert load_config_from_file(str(tmp_path / said.config_file)).distributed_type == "MULTI_GPU"
        assert (tmp_path / f"environment-{rank}").read_text() == "110 8\n"


def test_a_warned_job_saves_and_goes_back_to_the_queue(tmp_path, submit):
    (tmp_path / "wait").touch()
    job = submit("pretrain-8x8.sbatch", nodes=3)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("launched-?"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 143
    assert len(list(tmp_path.glob("saved-*"))) == 3, "it waited for all of them"
    assert (tmp_path / "requeued").read_text() == "requeue 4242\n"


@pytest.mark.parametrize("code", ["0", "3"])
def test_what_ends_by_itself_is_not_run_again(tmp_path, submit, code):
    (tmp_path / "code").write_text(code)
    assert submit("pretrain-1x8.sbatch", nodes=1).wait(timeout=60) == int(code)
    assert not (tmp_path / "requeued").exists()


def test_another_configuration(tmp_path, submit):
    config = SLURM / "accelerate-fsdp.yaml"
    assert submit("pretrain-1x8.sbatch", nodes=1, ACCELERATE_CONFIG=str(config)).wait(timeout=60) == 0
    line = (tmp_path / "launched-0").read_text().splitlines()
    assert line[line.index("--config_file") + 1] == str(config)
    found = load_config_from_file(str(config))
    assert found.distributed_type == "FSDP"
    assert found.fsdp_config["fsdp_version"] == 2
