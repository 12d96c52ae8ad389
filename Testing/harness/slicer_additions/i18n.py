"""Stand-in for slicer.i18n: no translation is loaded, so texts come back as they are."""


def tr(text):
    """The text in the user's language, its context being the calling file."""
    return text


def translate(context, text):
    """The text in the user's language, in a named context."""
    return text
