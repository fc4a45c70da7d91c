// Draws one SVG per weather station into a folder. The folder is a declared output, so this script need not know that it
// runs in a sandbox: the conductor has it archived and stored when the command ends.
const { mkdirSync, readFileSync, writeFileSync } = require('node:fs')
const { join } = require('node:path')

const WIDTH = 840
const HEIGHT = 300
const MARGIN = 40

const [, , inputPath, folder] = process.argv
const [, ...lines] = readFileSync(inputPath, 'utf8').trimEnd().split('\n')
const byStation = new Map()
for (const line of lines) {
  const [time, station, temperature, , , rain] = line.split(',')
  if (!byStation.has(station)) byStation.set(station, [])
  byStation.get(station).push({ time, temperature: Number(temperature), rain: Number(rain) })
}

mkdirSync(folder, { recursive: true })
for (const [station, readings] of byStation) {
  const path = join(folder, `${station.toLowerCase().replaceAll(' ', '-')}.svg`)
  writeFileSync(path, draw(station, readings))
  console.log(`drew ${path}`)
}

function draw(station, readings) {
  const low = Math.floor(Math.min(...readings.map(({ temperature }) => temperature)))
  const high = Math.ceil(Math.max(...readings.map(({ temperature }) => temperature)))
  const wettest = Math.max(1, ...readings.map(({ rain }) => rain))
  const x = (i) => MARGIN + (i * (WIDTH - 2 * MARGIN)) / (readings.length - 1)
  const y = (value, from, to) => HEIGHT - MARGIN - ((value - from) * (HEIGHT - 2 * MARGIN)) / (to - from)
  const line = readings.map(
    ({ temperature }, i) => `${x(i).toFixed(1)},${y(temperature, low, high).toFixed(1)}`,
  )
  const bars = readings.flatMap(({ rain }, i) => {
    const top = y(rain, 0, wettest * 3)
    return rain === 0 ? [] : [`M${x(i).toFixed(1)} ${HEIGHT - MARGIN}V${top.toFixed(1)}`]
  })
  const days = readings.flatMap(({ time }, i) =>
    time.endsWith('T00:00Z')
      ? [`<text x="${x(i).toFixed(1)}" y="${HEIGHT - MARGIN + 16}">${Number(time.slice(8, 10))}</text>`]
      : [],
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="11">
<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>
<text x="${MARGIN}" y="24" font-size="15">${station}: temperature (°C, ${low} to ${high}) and rain (bars, at most ${wettest} mm/h)</text>
<path d="${bars.join('')}" stroke="#7aa6c2" stroke-width="2" fill="none"/>
<polyline points="${line.join(' ')}" stroke="#b5402f" stroke-width="1.5" fill="none"/>
${days.join('\n')}
</svg>
`
}
