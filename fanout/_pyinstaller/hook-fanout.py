"""The parts that a bundle needs to find plugins: the metadata of each distribution that brings one, and the modules
that it names by text."""

from importlib.metadata import distributions

from PyInstaller.utils.hooks import collect_submodules, copy_metadata

_GROUPS = ("fanout.transports", "fanout.storage")


def _packages() -> "dict[str, set[str]]":
    """The distributions with plugins that are installed where the bundle is made, and the packages of theirs."""
    found: dict[str, set[str]] = {}
    for distribution in distributions():
        for entry in distribution.entry_points:
            if entry.group in _GROUPS:
                found.setdefault(distribution.metadata["Name"], set()).add(entry.module.partition(".")[0])
    return found


datas = []
hiddenimports = []
for _name, _modules in _packages().items():
    datas += copy_metadata(_name)
    for _module in sorted(_modules | {"fanout"}):
        # A descriptor names its factory as text, and `fanout` imports by name what is first used.
        hiddenimports += collect_submodules(
            _module, filter=lambda name: not name.startswith(("fanout.testing", "fanout._pyinstaller"))
        )
