"""Sentences below the controls they are about. No Qt."""


def tell(label, sentence):
    """Show a sentence in a label; without one the label takes no room."""
    label.text = sentence
    label.visible = bool(sentence)
