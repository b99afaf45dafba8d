"""What srun does to a tool, as far as its tasks see it: fake_srun.py TASKS TOOL [FLAGS] on one node.

The variables are those that Slurm's manual lists for srun. Tasks are forks of this process, so that libraries are
imported once. Ends with the largest exit code of the tasks.
"""

import multiprocessing
import os
import random
import runpy
import sys


def main():
    import pit_downstream.cli.models
    import pit_downstream.evaluation.evaluator
    import pit_downstream.evaluation.inputs  # noqa: F401
    tasks, *command = sys.argv[1:]
    step = {'SLURM_JOB_ID': str(random.randrange(10 ** 6)), 'SLURM_STEP_ID': '0', 'SLURM_STEPID': '0',
            'SLURM_NTASKS': tasks, 'SLURM_NPROCS': tasks, 'SLURM_STEP_NUM_TASKS': tasks, 'SLURM_STEP_NUM_NODES': '1',
            'SLURM_STEP_NODELIST': 'node[3-4]', 'SLURM_STEP_TASKS_PER_NODE': tasks, 'SLURM_NODEID': '0'}
    processes = [multiprocessing.get_context('fork').Process(target=run_task, args=(command, step, rank))
                 for rank in range(int(tasks))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode) for process in processes))


def run_task(command, step, rank):
    os.environ.update(step, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))
    sys.argv = command
    runpy.run_path(command[0], run_name='__main__')


if __name__ == '__main__':
    main()
