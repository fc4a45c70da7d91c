import { ConductorError } from '../errors.js'

/** A failure of this machine's own file system, which no tier can mend. */
export class LocalError extends ConductorError {}
