"""What an entity of the orrery carries.

Every entity, star, planet or asteroid, has the same four components and so lives in one archetype: gravity is
then one pass over one table, and it sees every attracting body at the very instant it needs.
"""

from tickwire_engine import Component


class Body(Component):
    """What a body is; never changed by a processor.

    Attributes:
        name: The body's name, as astropy knows it where astropy does.
        gm: Its gravitational parameter GM in au^3/d^2; 0 for a body that is attracted and attracts nothing.
        kind: ``star``, ``planet``, ``moon`` or ``asteroid``.
    """

    name: str
    gm: float
    kind: str


class Position(Component):
    """Position in au relative to the solar system's barycentre, along the ICRS axes."""

    x: float
    y: float
    z: float


class Velocity(Component):
    """Velocity in au per day (of TDB) relative to the solar system's barycentre, along the ICRS axes."""

    x: float
    y: float
    z: float


class Observed(Component):
    """The position as seen from the barycentre, in the ecliptic of J2000.

    Attributes:
        distance: Distance from the barycentre in au.
        longitude: Ecliptic longitude in degrees, from 0 up to 360.
        latitude: Ecliptic latitude in degrees, north positive.
    """

    distance: float = 0.0
    longitude: float = 0.0
    latitude: float = 0.0
