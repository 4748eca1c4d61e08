"""Compares the stays that Legwork finds in the GeoLife sample with those of scikit-mobility and trackintel.

    cargo test -p legwork-operators print_stays -- --ignored --nocapture 2> stays.csv
    python benches/compare_stays.py geolife_sample.csv.gz stays.csv

Needs scikit-mobility 1.3, trackintel 1.2 and numpy below 2, in an environment of their own. Agreement is time: seconds that both call a stay, as a
share of the seconds that the one or the other does.
"""

import sys

import geopandas
import numpy as np
import pandas as pd
import skmob
import trackintel
from skmob.preprocessing import detection

RADIUS_KM, MINUTES, GAP_MINUTES = 0.1, 5, 15


def spans(frame, start, end, by):
    return {user: list(zip(rows[start], rows[end])) for user, rows in frame.groupby(by)}


def marked(spans, times):
    """Which seconds between fixes lie within spans."""
    inside = np.zeros(len(times) - 1, bool)
    for start, end in spans:
        inside |= (times[:-1] >= start) & (times[1:] <= end)
    return inside


def scikit_mobility(points):
    frame = skmob.TrajDataFrame(points.copy(), latitude="lat", longitude="lng", datetime="datetime", user_id="uid")
    stays = detection.stay_locations(
        frame, minutes_for_a_stop=MINUTES, spatial_radius_km=RADIUS_KM, stop_radius_factor=1.0, leaving_time=True,
        no_data_for_minutes=1e12)
    stays["from"], stays["to"] = (pd.to_datetime(stays[c]).astype("int64") // 10**9 for c in ("datetime", "leaving_datetime"))
    return spans(pd.DataFrame(stays), "from", "to", "uid")


def track_intel(points, gap_minutes):
    frame = points.rename(columns={"uid": "user_id", "datetime": "tracked_at"})
    frame["tracked_at"] = pd.to_datetime(frame["tracked_at"], utc=True)
    geometry = geopandas.points_from_xy(frame["lng"], frame["lat"])
    frame = geopandas.GeoDataFrame(frame[["user_id", "tracked_at"]], geometry=geometry, crs=4326)
    fixes = trackintel.Positionfixes(frame) if hasattr(trackintel, "Positionfixes") else frame
    _, stays = fixes.as_positionfixes.generate_staypoints(
        method="sliding", dist_threshold=RADIUS_KM * 1000, time_threshold=float(MINUTES), gap_threshold=gap_minutes,
        include_last=True)
    stays["from"], stays["to"] = (stays[c].astype("int64") // 10**9 for c in ("started_at", "finished_at"))
    return spans(pd.DataFrame(stays), "from", "to", "user_id")


def main():
    points = pd.read_csv(sys.argv[1], dtype={"uid": str}, parse_dates=["datetime"])
    points = points.drop_duplicates(["uid", "datetime"], keep="last").sort_values(["uid", "datetime"])
    rows = [line.strip().split(",")[1:] for line in open(sys.argv[2]) if line.startswith("stay,")]
    ours = pd.DataFrame(rows, columns=["uid", "from", "to", "lat", "lng", "n"])
    ours = ours.astype({"from": float, "to": float})
    found = {
        "legwork": spans(ours, "from", "to", "uid"),
        "scikit-mobility": scikit_mobility(points),
        "trackintel, gaps of 15 min": track_intel(points, GAP_MINUTES),
        "trackintel, no gaps": track_intel(points, 1e6),
    }
    for user, fixes in points.groupby("uid"):
        times = fixes["datetime"].to_numpy().astype("datetime64[s]").astype("int64").astype(float)
        length = np.diff(times)
        travelled = length <= GAP_MINUTES * 60
        mine = marked(found["legwork"].get(user, []), times)
        for name, by_user in found.items():
            theirs = marked(by_user.get(user, []), times)
            line = f"{user} {name}: {len(by_user.get(user, []))} stays, {length[theirs].sum() / 3600:.1f} h"
            for which, of in (("all", slice(None)), ("without gaps", travelled)):
                both, either = (mine & theirs)[of], (mine | theirs)[of]
                line += f"; {which}: {100 * length[of][both].sum() / max(length[of][either].sum(), 1):.1f} %"
                line += f" (of theirs {100 * length[of][both].sum() / max(length[of][theirs[of]].sum(), 1):.1f} %)"
            starts = [start for start, _ in by_user.get(user, [])]
            near = sum(any(abs(start - other) <= 120 for other in starts) for start, _ in found["legwork"].get(user, []))
            print(f"{line}; {near} of ours begin within 2 min of one of theirs")


main()
