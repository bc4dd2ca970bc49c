"""What is done with a finished run: new slices mapped, genes imputed, trajectories."""
