"""What to type next where a model does not fit."""

MORE_MEMORY = (
    "--engine-arg gpu_memory_utilization=0.8 (less where others use this GPU, more where it is free),"
    " --engine-arg max_model_len=N, --tensor-parallel N, or a smaller model"
)
