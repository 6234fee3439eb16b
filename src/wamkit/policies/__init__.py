"""The policies, a package each. Kind -> where it is, as "module:name"."""

from importlib.metadata import EntryPoint, entry_points

KINDS = {
    "light_wam": "wamkit.policies.light_wam.policy:LightWAMConfig",
    "fast_wam": "wamkit.policies.fast_wam.policy:FastWAMConfig",
    "lawam": "wamkit.policies.lawam.policy:LaWAMConfig",
    "lawam_world": "wamkit.policies.lawam.world:LaWAMWorldConfig",
}
"""The config class."""

RELEASED = {
    "fast_wam": "wamkit.policies.fast_wam.convert:FORMAT",
    "lawam": "wamkit.policies.lawam.convert:FORMAT",
    "lawam_world": "wamkit.policies.lawam.convert:WORLD_FORMAT",
    "light_wam": "wamkit.policies.light_wam.convert:FORMAT",
}
"""Its released files, a `policies.released.Released`."""


def released_formats() -> dict[str, EntryPoint]:
    """By kind, not loaded: RELEASED, and the entry points `wamkit.released` of installed plug-ins."""
    group = "wamkit.released"
    ours = (EntryPoint(kind, target, group) for kind, target in RELEASED.items())
    return {entry.name: entry for entry in (*ours, *entry_points(group=group))}
