"""Slurm job steps: task variables in the form that torchrun sets."""

import os
import re
from collections.abc import Mapping

from pit_downstream.utils.errors import InputError

PORTS = range(12000, 32000)  # below Linux's ephemeral ports (32768 and up)


def get_env_rank() -> int:
    """Return the rank that torchrun or srun gave this process; 0 for a single process."""
    return int(os.environ.get('RANK') or get_step_env().get('RANK') or 0)


def get_env_world_size() -> int:
    """Return the number of processes that torchrun or srun started; 1 for a single process."""
    return int(os.environ.get('WORLD_SIZE') or get_step_env().get('WORLD_SIZE') or 1)


def require_one_process(work: str) -> None:
    """Raise InputError if torchrun or srun started several processes for work that cannot be shared."""
    if get_env_world_size() > 1:
        raise InputError(f'{work} runs in one process, got {get_env_world_size()}; start it without torchrun or srun')


def get_step_env(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT of a task in a multi-task step, else {}.

    Only srun sets SLURM_STEP_NUM_TASKS. A batch script and a shell of salloc have SLURM_NTASKS and SLURM_PROCID=0 of
    the whole job but run one process. `srun --pty bash` also runs one process, as a step with one task. Variables set
    by torchrun take precedence. The first node of the step is the address. The port follows from the job and the step,
    so that two of them can share a node. MASTER_ADDR and MASTER_PORT in `env` take precedence.
    """
    tasks = int(env.get('SLURM_STEP_NUM_TASKS') or 1)
    if tasks < 2 or 'SLURM_PROCID' not in env or 'RANK' in env:
        return {}
    job, step = (int(env.get(name) or 0) for name in ('SLURM_JOB_ID', 'SLURM_STEP_ID'))
    nodes = env.get('SLURM_STEP_NODELIST') or env.get('SLURM_JOB_NODELIST') or ''
    alone = env.get('SLURM_STEP_NUM_NODES') == '1'
    return {'RANK': env['SLURM_PROCID'], 'WORLD_SIZE': str(tasks), 'LOCAL_RANK': env.get('SLURM_LOCALID', '0'),
            'MASTER_ADDR': env.get('MASTER_ADDR') or ('127.0.0.1' if alone or not nodes else parse_first_node(nodes)),
            'MASTER_PORT': env.get('MASTER_PORT') or str(PORTS[(31 * job + step) % len(PORTS)])}


def parse_first_node(nodes: str) -> str:
    """Return the first host of a Slurm node list: 'gpu[003-005,7],login1' -> 'gpu003'."""
    found = re.match(r'(?:[^,\[]|\[[^\]]*\])+', nodes)
    if found is None:
        raise InputError(f'expected a list of nodes in SLURM_STEP_NODELIST, got {nodes!r}; set MASTER_ADDR')
    return re.sub(r'\[([^\],-]+)[^\]]*\]', r'\1', found[0])
