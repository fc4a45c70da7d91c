// Prints statistics of weather readings as JSON, one entry per station: stands in for weather.py where there is no Python.
const { readFileSync } = require('node:fs')

const [, ...lines] = readFileSync(process.argv[2], 'utf8').trimEnd().split('\n')
const byStation = new Map()
for (const reading of lines.map(parse)) {
  if (!byStation.has(reading.station)) byStation.set(reading.station, [])
  byStation.get(reading.station).push(reading)
}
const stations = Object.fromEntries(
  [...byStation].map(([station, readings]) => [station, describe(readings)]),
)
console.log(JSON.stringify({ made_by: 'node', stations }, null, 2))

function parse(line) {
  const [time, station, temperature, , wind, rain] = line.split(',')
  return {
    day: time.slice(0, 10),
    station,
    temperature: Number(temperature),
    wind: Number(wind),
    rain: Number(rain),
  }
}

function describe(readings) {
  const temperatures = readings.map(({ temperature }) => temperature)
  const mean = temperatures.reduce((sum, value) => sum + value, 0) / temperatures.length
  const squares = temperatures.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  const rainByDay = new Map()
  for (const { day, rain } of readings) rainByDay.set(day, (rainByDay.get(day) ?? 0) + rain)
  const days = [...rainByDay].sort(([, a], [, b]) => b - a)
  return {
    readings: readings.length,
    temperature_c: {
      min: Math.min(...temperatures),
      mean: round(mean, 2),
      max: Math.max(...temperatures),
      deviation: round(Math.sqrt(squares / (temperatures.length - 1)), 2),
    },
    strongest_wind_m_s: Math.max(...readings.map(({ wind }) => wind)),
    rain_mm: round(
      days.reduce((sum, [, rain]) => sum + rain, 0),
      1,
    ),
    wettest_day: days[0][0],
  }
}

function round(value, digits) {
  return Number(value.toFixed(digits))
}
