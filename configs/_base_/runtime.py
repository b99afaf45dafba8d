"""What every config here shares: our package, and `load_from` that also takes a classifier's checkpoint."""
custom_imports = dict(imports=['pit_downstream.det'], allow_failed_imports=False)
custom_hooks = [dict(type='BackboneLoadFromHook')]
