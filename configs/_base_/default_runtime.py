"""Shared settings of all configs: our package, and `load_from` that also accepts a classifier's checkpoint."""
custom_imports = dict(imports=['pit_downstream.det'], allow_failed_imports=False)
custom_hooks = [dict(type='BackboneLoadFromHook')]
