"""Prints statistics of weather readings as JSON, one entry per station."""

import csv
import json
import statistics
import sys
from collections import defaultdict


def describe(readings):
    temperatures = [float(reading["temperature_c"]) for reading in readings]
    rain_by_day = defaultdict(float)
    for reading in readings:
        rain_by_day[reading["time"][:10]] += float(reading["rain_mm"])
    wettest_day = max(rain_by_day, key=rain_by_day.get)
    return {
        "readings": len(readings),
        "temperature_c": {
            "min": min(temperatures),
            "mean": round(statistics.fmean(temperatures), 2),
            "max": max(temperatures),
            "deviation": round(statistics.stdev(temperatures), 2),
        },
        "strongest_wind_m_s": max(float(reading["wind_m_s"]) for reading in readings),
        "rain_mm": round(sum(rain_by_day.values()), 1),
        "wettest_day": wettest_day,
    }


def main():
    by_station = defaultdict(list)
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        for reading in csv.DictReader(file):
            by_station[reading["station"]].append(reading)
    report = {station: describe(readings) for station, readings in by_station.items()}
    json.dump({"made_by": "python", "stations": report}, sys.stdout, indent=2)
    print()


main()
