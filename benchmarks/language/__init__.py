"""Language detection: gathering sources, training the model, comparing it with others."""
