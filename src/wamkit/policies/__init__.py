"""The policies, a package each. RELEASED: kind of a policy -> its `policies.released.Released`, as "module:name"."""

RELEASED = {
    "fast_wam": "wamkit.policies.fast_wam.convert:FORMAT",
    "light_wam": "wamkit.policies.light_wam.convert:FORMAT",
}
