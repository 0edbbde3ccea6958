"""A pytest plugin: what docker-py's tests do about swarms after each test does nothing.

Tests of networks leave a swarm that they never joined; estiba has none to leave.
"""

from docker.api.swarm import SwarmApiMixin

SwarmApiMixin.leave_swarm = lambda self, force=False: True
