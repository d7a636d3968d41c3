"""Asking benchmark questions: intervals, figures, and one file per benchmark."""
