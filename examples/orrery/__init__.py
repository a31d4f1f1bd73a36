"""The orrery: the solar system as a Tickwire world.

Real state vectors of the Sun, the eight planets and the Moon, ten thousand massless asteroids, and Newton's
gravity. Everywhere in this package lengths are in astronomical units (au), times in days of 86,400 s of
barycentric dynamical time (TDB), and vectors are barycentric along the ICRS axes, unless a name says
otherwise.

- ``components``: what an entity carries.
- ``bodies``: many bodies as columns, and the table that spawns them.
- ``ephemeris``, ``asteroids``: where the bodies come from.
- ``gravity``: the integrator, pure numpy.
- ``processors``: the two processors of a tick.
- ``accuracy``, ``plot``: how far the world is from astropy's own positions, and the picture of it.
"""
