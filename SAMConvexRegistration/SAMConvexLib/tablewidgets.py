"""Texts in the tables of a panel."""

import qt


def fillTableWidget(table, titles, lines):
    """A table widget's cells anew: one item per text."""
    table.setRowCount(len(lines))
    table.setColumnCount(len(titles))
    table.setHorizontalHeaderLabels(titles)
    for row, texts in enumerate(lines):
        for column, text in enumerate(texts):
            table.setItem(row, column, qt.QTableWidgetItem(text))
