"""What srun does to a command, as far as its tasks see it: fake_srun.py TASKS COMMAND ... on one node.

The variables are those that Slurm's manual lists for srun. Ends with the largest exit code of the tasks.
"""

import os
import random
import subprocess
import sys


def main():
    tasks, *command = sys.argv[1:]
    step = {'SLURM_JOB_ID': str(random.randrange(10 ** 6)), 'SLURM_STEP_ID': '0', 'SLURM_STEPID': '0',
            'SLURM_NTASKS': tasks, 'SLURM_NPROCS': tasks, 'SLURM_STEP_NUM_TASKS': tasks, 'SLURM_STEP_NUM_NODES': '1',
            'SLURM_STEP_NODELIST': 'node[3-4]', 'SLURM_STEP_TASKS_PER_NODE': tasks, 'SLURM_NODEID': '0'}
    processes = [subprocess.Popen(command, env={**os.environ, **step, 'SLURM_PROCID': str(rank),
                                                'SLURM_LOCALID': str(rank)}) for rank in range(int(tasks))]
    sys.exit(max(process.wait() for process in processes))


if __name__ == '__main__':
    main()
