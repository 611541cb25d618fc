"""From slides to records, from records to batches; splits that keep a held-out part apart."""
