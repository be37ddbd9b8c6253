#include "addon_ring.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <map>
#include <memory>

#include "addon_values.h"
#include "housekeeper.h"
#include "ring.h"

namespace loopback {

namespace {

class RingObject : public Napi::ObjectWrap<RingObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "Ring",
        {InstanceMethod<&RingObject::parameters>("parameters"),
         InstanceMethod<&RingObject::set_parameters>("setParameters"),
         InstanceMethod<&RingObject::counters>("counters"),
         InstanceMethod<&RingObject::consumers>("consumers"),
         InstanceMethod<&RingObject::reset_counters>("resetCounters"),
         InstanceMethod<&RingObject::join_producer>("joinProducer"),
         InstanceMethod<&RingObject::leave_producer>("leaveProducer"),
         InstanceMethod<&RingObject::join_consumer>("joinConsumer"),
         InstanceMethod<&RingObject::leave_consumer>("leaveConsumer"),
         InstanceMethod<&RingObject::publish>("publish"), InstanceMethod<&RingObject::take>("take"),
         InstanceMethod<&RingObject::tick>("tick"),
         InstanceMethod<&RingObject::advance_clock>("advanceClock"),
         InstanceMethod<&RingObject::set_sizeimage>("setSizeimage"),
         InstanceMethod<&RingObject::close>("close")});
  }

  explicit RingObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    if (info.Length() < 1 || !info[0].IsObject())
      throw Napi::TypeError::New(info.Env(), "a Ring is made with an object of options");
    const auto options = info[0].As<Napi::Object>();
    Ring::Setup setup;
    setup.sizeimage =
        static_cast<size_t>(number_property(options, "sizeimage", 1, uint64_t{1} << 40));
    bool dynamic_written;
    if (options.Get("parameters").IsObject())
      apply_parameters(options.Get("parameters").As<Napi::Object>(), &setup.parameters,
                       &dynamic_written);
    const RingParameters wanted = setup.parameters;
    manual_ = options.Get("manualClock").ToBoolean().Value();
    setup.now = now();
    // Another clock, and so other looks.
    if (manual_) setup.budget = std::make_shared<MemoryBudget>();
    if (!manual_) {
      housekeeper_ = Housekeeper::shared();
      setup.wake_housekeeper = [this](Ring* ring) { housekeeper_->wake(ring); };
    }
    ring_ = std::make_unique<Ring>(std::move(setup));
    // One place knows what contradicts what.
    const std::string wrong = ring_->set_parameters(wanted, false, now());
    if (!wrong.empty()) {
      ring_.reset();
      throw error_with_code(info.Env(), EINVAL, wrong);
    }
    if (!manual_) housekeeper_->add(ring_.get());
  }

  ~RingObject() override { end(); }

 private:
  Nanoseconds now() const { return manual_ ? clock_ : monotonic_now(); }

  void end() {
    if (!ring_) return;
    if (housekeeper_) housekeeper_->remove(ring_.get());
    for (auto& [id, consumer] : consumers_) ring_->leave_consumer(consumer, now());
    for (auto& [id, producer] : producers_) ring_->leave_producer(producer, now());
    consumers_.clear();
    producers_.clear();
    ring_.reset();
  }

  Ring& ring(const Napi::CallbackInfo& info) {
    if (!ring_) throw error_with_code(info.Env(), EBADF, "this ring was closed");
    return *ring_;
  }

  template <class Party>
  Party* party(const Napi::CallbackInfo& info, std::map<uint32_t, Party*>* parties,
               const char* what) {
    ring(info);
    const auto found = info.Length() > 0 && info[0].IsNumber()
                           ? parties->find(info[0].As<Napi::Number>().Uint32Value())
                           : parties->end();
    if (found == parties->end())
      throw error_with_code(info.Env(), EINVAL,
                            (info.Length() > 0 ? info[0].ToString().Utf8Value() : "nothing") +
                                " is not the id of a " + what + " of this ring");
    return found->second;
  }

  Napi::Value parameters(const Napi::CallbackInfo& info) {
    return to_object(info.Env(), ring(info).parameters());
  }

  void set_parameters(const Napi::CallbackInfo& info) {
    RingParameters next = ring(info).parameters();
    bool dynamic_written = false;
    apply_parameters(info[0].As<Napi::Object>(), &next, &dynamic_written);
    const std::string wrong = ring_->set_parameters(next, dynamic_written, now());
    if (!wrong.empty()) throw error_with_code(info.Env(), EINVAL, wrong);
  }

  Napi::Value counters(const Napi::CallbackInfo& info) {
    return to_object(info.Env(), ring(info).counters(now()));
  }
  Napi::Value consumers(const Napi::CallbackInfo& info) {
    return to_array(info.Env(), ring(info).consumer_reports(now()));
  }
  void reset_counters(const Napi::CallbackInfo& info) { ring(info).reset_counters(now()); }

  Napi::Value join_producer(const Napi::CallbackInfo& info) {
    Producer* producer = ring(info).join_producer({getpid(), "library"}, now());
    if (producer == nullptr)
      throw error_with_code(info.Env(), EBUSY, "a static ring has one producer at a time");
    producers_[++last_id_] = producer;
    return Napi::Number::New(info.Env(), last_id_);
  }

  void leave_producer(const Napi::CallbackInfo& info) {
    Producer* producer = party(info, &producers_, "producer");
    ring_->leave_producer(producer, now());
    producers_.erase(info[0].As<Napi::Number>().Uint32Value());
  }

  Napi::Value join_consumer(const Napi::CallbackInfo& info) {
    const std::string command =
        info.Length() > 0 && info[0].IsString() ? info[0].ToString().Utf8Value() : "library";
    consumers_[++last_id_] = ring(info).join_consumer({getpid(), command}, now());
    return Napi::Number::New(info.Env(), last_id_);
  }

  void leave_consumer(const Napi::CallbackInfo& info) {
    Consumer* consumer = party(info, &consumers_, "consumer");
    ring_->leave_consumer(consumer, now());
    consumers_.erase(info[0].As<Napi::Number>().Uint32Value());
  }

  Napi::Value publish(const Napi::CallbackInfo& info) {
    Producer* producer = party(info, &producers_, "producer");
    if (info.Length() < 2 || !info[1].IsTypedArray())
      throw Napi::TypeError::New(info.Env(), "a frame is published from a Uint8Array");
    const auto payload = info[1].As<Napi::Uint8Array>();
    if (payload.ByteLength() == 0)
      throw error_with_code(info.Env(), EINVAL, "a frame of 0 bytes is none");
    Claim* claim = nullptr;
    Nanoseconds retry_at;
    switch (ring_->claim(producer, payload.ByteLength(), now(), &claim, &retry_at)) {
      case ClaimAnswer::kGranted:
        break;
      case ClaimAnswer::kFull:
        return Napi::Boolean::New(info.Env(), false);
      case ClaimAnswer::kTooLarge:
        throw error_with_code(info.Env(), EINVAL,
                              "a frame of " + std::to_string(payload.ByteLength()) +
                                  " bytes is above the ring's maximum");
      case ClaimAnswer::kNoMemory:
        throw error_with_code(info.Env(), ENOMEM, "no memory for a frame");
    }
    memcpy(claim->data(), payload.Data(), payload.ByteLength());
    ring_->publish(claim, payload.ByteLength(), FrameTags(), now());
    return Napi::Boolean::New(info.Env(), true);
  }

  Napi::Value take(const Napi::CallbackInfo& info) {
    Consumer* consumer = party(info, &consumers_, "consumer");
    const Frame* frame = ring_->take(consumer, now());
    if (frame == nullptr) {
      // Nobody waits here: the next frame is owed until it is asked for.
      ring_->stop_waiting(consumer);
      return info.Env().Null();
    }
    Napi::Object taken = Napi::Object::New(info.Env());
    taken.Set("sequence", static_cast<double>(frame->sequence));
    taken.Set("timestampNs", Napi::BigInt::New(info.Env(), frame->timestamp_ns));
    taken.Set("payload", Napi::Buffer<uint8_t>::Copy(info.Env(), frame->data(), frame->bytesused));
    ring_->release(consumer, now());
    return taken;
  }

  void tick(const Napi::CallbackInfo& info) { ring(info).tick(now()); }

  void advance_clock(const Napi::CallbackInfo& info) {
    if (!manual_)
      throw error_with_code(info.Env(), EINVAL, "only the clock of a manualClock ring is turned");
    clock_ += static_cast<Nanoseconds>(info[0].ToNumber().DoubleValue() * kMillisecond);
  }

  void set_sizeimage(const Napi::CallbackInfo& info) {
    ring(info).set_sizeimage(static_cast<size_t>(info[0].ToNumber().Int64Value()), now());
  }

  void close(const Napi::CallbackInfo&) { end(); }

  bool manual_ = false;
  Nanoseconds clock_ = kSecond;
  std::shared_ptr<Housekeeper> housekeeper_;
  std::unique_ptr<Ring> ring_;
  std::map<uint32_t, Producer*> producers_;
  std::map<uint32_t, Consumer*> consumers_;
  uint32_t last_id_ = 0;
};

}  // namespace

Napi::Function define_ring(Napi::Env env) { return RingObject::define(env); }

}  // namespace loopback
