"""The long options of sbatch, SLURM 20.11 to 24.11: those a profile may pass through, and those it may not."""

# Options that a key of the profile or the program itself sets, with what to do instead.
OWN = {
    "account": "write account: as a key of the profile",
    "array": "jobs_at_a_time: limits how many jobs run at once",
    "constraint": "write constraint: as a key of the profile",
    "cpus-per-task": "use cpus_per_process:",
    "dependency": "the arrays of a sweep depend on each other already",
    "error": "all output goes into the folder of the sweep; see vwm-sweep logs",
    "exclude": "write exclude: as a key of the profile",
    "gpus-per-node": "use gpus_per_node:",
    "gres": "write gres: as a key of the profile",
    "job-name": "a unique name finds the job again after a doubtful answer",
    "mail-type": "use mail_type:",
    "mail-user": "use mail_user:",
    "mem": "use mem_gb:",
    "no-requeue": "use max_requeues: 0",
    "nodes": "write nodes: as a key of the profile",
    "ntasks": "use processes_per_node:",
    "ntasks-per-node": "use processes_per_node:",
    "open-mode": "the output of later attempts is appended",
    "output": "all output goes into the folder of the sweep; see vwm-sweep logs",
    "partition": "write partition: as a key of the profile",
    "qos": "write qos: as a key of the profile",
    "requeue": "use max_requeues:",
    "signal": "use signal_delay_s:",
    "time": "use timeout_min:",
    "wrap": "use setup: for lines before the training",
}

_NAMES = """
acctg-freq batch bb bbf begin bell chdir cluster-constraint clusters comment contiguous core-spec cores-per-socket
cpu-freq cpus-per-gpu deadline delay-boot distribution exclusive export export-file extra extra-node-info
get-user-env gid gpu-bind gpu-freq gpus gpus-per-socket gpus-per-task gres-flags hint hold ignore-pbs
kill-on-invalid-dep licenses mcs-label mem-bind mem-per-cpu mem-per-gpu mincpus network nice no-kill nodefile
nodelist ntasks-per-core ntasks-per-gpu ntasks-per-socket oom-kill-step overcommit oversubscribe power prefer
priority profile propagate reboot reservation resv-ports segment sockets-per-node spread-job spread-segments
stepmgr switches thread-spec threads-per-core time-min tmp tres-bind tres-per-task uid use-min-nodes wait-all-nodes
wckey
"""
SBATCH_OPTIONS = frozenset(_NAMES.split())
