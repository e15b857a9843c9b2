"""From a frozen plan over trained runs and stored rows to measures, figures and a report."""
