// `npm run build`: installs and builds what is missing or out of date.
import { ensureBuilt } from "./steps.mjs";

ensureBuilt();
