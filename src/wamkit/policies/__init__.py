"""The policies, a package each. Kind -> where it is, as "module:name"."""

KINDS = {
    "light_wam": "wamkit.policies.light_wam.policy:LightWAMConfig",
    "fast_wam": "wamkit.policies.fast_wam.policy:FastWAMConfig",
}
"""The config class."""

RELEASED = {
    "fast_wam": "wamkit.policies.fast_wam.convert:FORMAT",
    "light_wam": "wamkit.policies.light_wam.convert:FORMAT",
}
"""Its released files, a `policies.released.Released`."""
