/** The version, that of the Python packages. */
export const VERSION = "0.1.0";
