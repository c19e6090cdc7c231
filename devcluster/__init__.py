"""A real one-machine Kubernetes for places without Docker, and the images that run in it.

Everything is built from Go modules and Debian packages. The cluster is one node in namespaces of its own (mounts,
network, processes), held open by one process: ending that process ends all of it. What the cluster writes is in one
state folder; what is worth keeping between clusters (binaries, image layers) is in one cache folder.

Only the standard library is used, so that it runs before any virtual environment exists.
"""
