export {
  DynamicBuffer,
  type FrameConsumer,
  type FrameProducer,
  type TakenFrame,
} from "./buffer/dynamic-buffer.js";
export { CodedError } from "./errors.js";
export type { ConsumerRow, RingCounters, RingParameters } from "./native.js";
