"""What the names of files in people's folders say: which are pictures, and which are left out."""

# What a picture's file is recognised by. Those that `decode` cannot read are reported as broken, not passed over.
_ENDINGS = frozenset(
    [
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "gif",
        "bmp",
        "webp",
        "tif",
        "tiff",
        "heic",
        "heif",
        "avif",
        "jp2",
        "jxl",
        "ppm",
    ]
)
# Besides names that begin with a dot, what operating systems leave in folders.
_HIDDEN = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db", "desktop.ini")
)


def is_picture(name: str) -> bool:
    """Whether a file's ending is that of an image.

    Example:
        >>> is_picture("IMG_1.JPG"), is_picture("notes.txt")
        (True, False)
    """
    return name.rpartition(".")[2].lower() in _ENDINGS


def is_hidden(name: str) -> bool:
    """Whether a file or directory is left out: a hidden one, or what an operating system leaves in folders.

    Example:
        >>> is_hidden(".thumbnails"), is_hidden("@eaDir"), is_hidden("cats")
        (True, True, False)
    """
    return name.startswith(".") or name in _HIDDEN
