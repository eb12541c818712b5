"""What a run leaves behind, and what is made of it: journals, checkpoints, evaluation, pictures and exports."""
