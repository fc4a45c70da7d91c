/** A remark in the tail of a log, which stands for bytes that the disk did not take. */
export interface Remark {
  /** Where it ends, by all bytes that the tail ever got. */
  readonly end: number
  readonly sizeBytes: number
  readonly lostBytes: number
}

/** A stretch of the end of a log: output, or a remark. */
export interface Piece {
  readonly bytes: Buffer
  /** Output that is missing where this is. */
  readonly lostBytes: number
  readonly isRemark: boolean
}

/** Says where output is missing because the disk did not take it. */
export function remarkOn(lostBytes: number): Buffer {
  return Buffer.from(`\n[persist-result: ${lostBytes} bytes could not be written]\n`)
}

function remarkOnGap(missingBytes: number): Buffer {
  return Buffer.from(`\n[persist-result: ${missingBytes} bytes left out]\n`)
}

/**
 * What is kept of a tail, about `limitBytes`, after a remark on what is not. `bytes` are the last that it got, `droppedBytes` of
 * others came before them.
 */
export function piecesOf(
  bytes: Buffer,
  droppedBytes: number,
  limitBytes: number,
  remarks: readonly Remark[],
): readonly Piece[] {
  const limit = droppedBytes + Math.max(0, bytes.length - limitBytes)
  const halved = remarks.find(({ end, sizeBytes }) => end - sizeBytes < limit && limit < end)
  const cut = halved?.end ?? limit
  // A remark that is left out itself gives way to the bytes that it stood for.
  const missingBytes = remarks
    .filter(({ end }) => end <= cut)
    .reduce((sum, { lostBytes, sizeBytes }) => sum + lostBytes - sizeBytes, cut)
  const pieces: Piece[] = []
  const add = (piece: Buffer, lostBytes: number, isRemark: boolean): void => {
    if (piece.length > 0) pieces.push({ bytes: piece, lostBytes, isRemark })
  }
  if (missingBytes > 0) add(remarkOnGap(missingBytes), missingBytes, true)
  let at = cut
  const addOutput = (to: number): void => {
    add(bytes.subarray(at - droppedBytes, to - droppedBytes), to - at, false)
  }
  for (const { end, sizeBytes, lostBytes } of remarks.filter((one) => one.end > cut)) {
    addOutput(end - sizeBytes)
    add(bytes.subarray(end - sizeBytes - droppedBytes, end - droppedBytes), lostBytes, true)
    at = end
  }
  addOutput(droppedBytes + bytes.length)
  return pieces
}
