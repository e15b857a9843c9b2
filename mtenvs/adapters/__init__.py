"""Other interfaces than Gymnasium's."""
