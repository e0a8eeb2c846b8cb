"""Opens a page on this machine where a picture is dropped and its classes and heat map appear.

    flax-resnets demo runs/quickstart
    flax-resnets demo runs/quickstart --port 8000

The network is a run's workdir, a folder that was saved from one, hf-hub:owner/name, or a name of timm's weights such as
resnet50.a1_in1k. The page is at http://127.0.0.1:PORT/ and can be opened on this machine alone. It loads nothing from
the network, and pictures stay on this machine. Ctrl-C ends it.
"""

import argparse
import signal

from flax_resnets.cli.parser import Parser, whole_number
from flax_resnets.cli.predict import add_choice_of_classifier, add_source, load
from flax_resnets.errors import UserError, printable


def add_arguments(parser: Parser) -> None:
    """Adds the command's arguments."""
    add_source(parser)
    parser.add_argument(
        "--port",
        type=whole_number(0, 65535),
        default=7860,
        metavar="N",
        help="of the page; 0 for any free; default 7860",
    )
    add_choice_of_classifier(parser)


def run(arguments: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C or SIGTERM.

    Raises:
        UserError: the network cannot be loaded, has no classes, or the port cannot be used.
    """
    from flax_resnets.inference.demo import DemoServer

    if arguments.own_process:  # also where a shell's script has started it with Ctrl-C ignored
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    try:
        classifier = load(arguments)
        with DemoServer(classifier, arguments.source, arguments.port) as server:
            print("compiling the network", flush=True)
            server.warm_up()
            print(f"{printable(arguments.source)}: {server.address} (Ctrl-C ends it)", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        print()
    except UserError as error:
        if not str(error).startswith("port="):
            raise
        raise UserError(f"demo: --{error}") from None
