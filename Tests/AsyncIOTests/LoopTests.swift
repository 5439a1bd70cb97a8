import AsyncIO
import Glibc
import Synchronization
import Testing
import Timebase

@Suite(.serialized, .timeLimit(.minutes(1)))
struct LoopTests {
    @Test("timers fire in the order of their deadlines, equal ones as they were set, none early")
    func timerOrder() throws {
        try withReactor { reactor in
            let recorder = TimerRecorder { reactor.readClock() }
            let deadlines = try reactor.performAndWait {
                let start = reactor.readClock()
                let delays = [30, 10, 20, 10, 0, 20, 5, 10].map { Duration.milliseconds($0) }
                for (token, delay) in delays.enumerated() {
                    _ = reactor.setTimer(at: start + delay, handler: recorder, token: UInt64(token))
                }
                return delays.map { start + $0 }
            }
            try reactor.wait(for: "eight timers") { recorder.fired.count == 8 }
            try reactor.performAndWait {
                #expect(recorder.fired == [4, 6, 1, 3, 7, 2, 5, 0])
                for (token, moment) in zip(recorder.fired, recorder.moments) {
                    #expect(moment >= deadlines[Int(token)])
                }
                #expect(reactor.counters.pendingTimers == 0)
            }
        }
    }

    @Test("cancelled timers do not fire, whoever cancels them and when")
    func timerCancel() throws {
        try withReactor { reactor in
            let recorder = TimerRecorder { reactor.readClock() }
            try reactor.performAndWait {
                let start = reactor.readClock()
                var timers = (0..<200).map { token in
                    reactor.setTimer(
                        at: start + .microseconds((token * 7919) % 20_000), handler: recorder, token: UInt64(token))
                }
                for token in stride(from: 0, to: 200, by: 2) { reactor.cancelTimer(timers[token]) }
                reactor.cancelTimer(timers[0])
                // One timer cancels another that is due in the same turn.
                let due = start + .milliseconds(25)
                timers.append(reactor.setTimer(at: due, handler: recorder, token: 1000))
                timers.append(reactor.setTimer(at: due, handler: recorder, token: 1001))
                let victim = timers.last!
                recorder.onFire = { token in if token == 1000 { reactor.cancelTimer(victim) } }
                _ = reactor.setTimer(at: start + .milliseconds(30), handler: recorder, token: 2000)
            }
            try reactor.wait(for: "the last timer") { recorder.fired.last == 2000 }
            try reactor.performAndWait {
                #expect(recorder.fired.filter { $0 < 200 }.sorted() == stride(from: UInt64(1), to: 200, by: 2).map { $0 })
                #expect(recorder.fired.contains(1000) && !recorder.fired.contains(1001))
                #expect(reactor.counters.pendingTimers == 0)
            }
        }
    }

    @Test("a timer that sets itself for now lets the loop go on")
    func selfSettingTimer() throws {
        try withReactor { reactor in
            let recorder = TimerRecorder { reactor.readClock() }
            try reactor.performAndWait {
                recorder.onFire = { token in
                    if token < 100 { _ = reactor.setTimer(at: .zero, handler: recorder, token: token + 1) }
                }
                _ = reactor.setTimer(at: .zero, handler: recorder, token: 0)
            }
            try reactor.wait(for: "a hundred rounds") { recorder.fired.count == 101 }
        }
    }

    @Test("a sleep of a millisecond is not rounded up by the timer slack")
    func timerPrecision() throws {
        try withReactor { reactor in
            var best = Duration.seconds(1)
            for _ in 0..<20 {
                let recorder = TimerRecorder { reactor.readClock() }
                let deadline = try reactor.performAndWait {
                    let deadline = reactor.readClock() + .milliseconds(1)
                    _ = reactor.setTimer(at: deadline, handler: recorder, token: 0)
                    return deadline
                }
                try reactor.wait(for: "the timer") { !recorder.moments.isEmpty }
                let late = try reactor.performAndWait { recorder.moments[0] - deadline }
                best = min(best, late)
            }
            #expect(best < .microseconds(500))
        }
    }

    final class Turns: TurnHandler {
        var count = 0
        func turn() { count += 1 }
    }

    @Test("a scheduled handler is called once, later, before the loop sleeps")
    func schedule() throws {
        try withReactor { reactor in
            let turns = Turns()
            try reactor.performAndWait {
                reactor.schedule(turns)
                #expect(turns.count == 0)
            }
            try reactor.wait(for: "its turn") { turns.count == 1 }
            usleep(5000)
            try reactor.performAndWait { #expect(turns.count == 1) }
        }
    }

    final class Producer {
        let reactor: LibaioReactor
        let number: Int
        let counts: UnsafeMutablePointer<Int>
        init(_ reactor: LibaioReactor, _ number: Int, _ counts: UnsafeMutablePointer<Int>) {
            self.reactor = reactor
            self.number = number
            self.counts = counts
        }
    }

    @Test("100,000 jobs from four threads all run, each thread's in order")
    func crossThreadJobs() throws {
        try withReactor { reactor in
            // [0..<4] the next number expected of each thread, [4] those out of order.
            let counts = UnsafeMutablePointer<Int>.allocate(capacity: 5)
            counts.initialize(repeating: 0, count: 5)
            defer { counts.deallocate() }
            var threads: [pthread_t] = []
            for number in 0..<4 {
                var thread = pthread_t()
                let producer = Unmanaged.passRetained(Producer(reactor, number, counts)).toOpaque()
                pthread_create(
                    &thread, nil,
                    { raw in
                        let producer = Unmanaged<Producer>.fromOpaque(raw!).takeRetainedValue()
                        let number = producer.number
                        nonisolated(unsafe) let counts = producer.counts
                        for job in 0..<25_000 {
                            producer.reactor.enqueue {
                                if counts[number] != job { counts[4] += 1 }
                                counts[number] += 1
                            }
                            // Let the loop fall asleep now and then: the wake-up is what is tested.
                            if job % 5000 == 0 { usleep(2000) }
                        }
                        return nil
                    }, producer)
                threads.append(thread)
            }
            for thread in threads { pthread_join(thread, nil) }
            try reactor.performAndWait {
                #expect((0..<5).map { counts[$0] } == [25_000, 25_000, 25_000, 25_000, 0])
                let counters = reactor.counters
                #expect(counters.wakeUps < counters.jobs / 2, "wake-ups are not coalesced")
            }
        }
    }

    @Test("an idle reactor sleeps")
    func idleSleeps() throws {
        try withReactor { reactor in
            _ = try connectPair(reactor)
            let before = try reactor.performAndWait { reactor.counters }
            usleep(50_000)
            let after = try reactor.performAndWait { reactor.counters }
            #expect(after.turns - before.turns <= 10)
        }
    }

    @Test("busy polling finds jobs and completions as well")
    func busyPoll() throws {
        try withReactor(.with { $0.busyPoll = .milliseconds(2) }) { reactor in
            let pair = try connectPair(reactor)
            let bytes = pattern(100)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                pair.client.output = UnsafeRawBufferPointer(bytes)
                reactor.requestSend(pair.clientSocket)
            }
            try reactor.wait(for: "the bytes") { pair.server.receivedByteCount == 100 }
        }
    }

    @Test("the loop's thread is as urgent as the process, not as the thread that started it")
    func niceValue() throws {
        final class Starter {
            let reactor: LibaioReactor
            /// Root may, others within RLIMIT_NICE.
            var mayTakeItBack = false

            init(_ reactor: LibaioReactor) { self.reactor = reactor }

            func run() {
                let which = __priority_which_t(PRIO_PROCESS.rawValue)
                let usual = getpriority(which, id_t(getpid()))
                setpriority(which, 0, usual + 3)
                try? reactor.start()
                mayTakeItBack = setpriority(which, 0, usual) == 0
            }
        }
        let reactor = try LibaioReactor()
        let began = Starter(reactor)
        // A thread of its own, which need not be able to take the higher nice value back.
        var starter = pthread_t()
        let code = pthread_create(
            &starter, nil,
            { raw in
                Unmanaged<Starter>.fromOpaque(raw!).takeUnretainedValue().run()
                return nil
            }, Unmanaged.passUnretained(began).toOpaque())
        try #require(code == 0)
        pthread_join(starter, nil)
        let values = try reactor.performAndWait {
            (getpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0), getpriority(__priority_which_t(PRIO_PROCESS.rawValue), id_t(getpid())))
        }
        reactor.stop()
        // Without the right to it the loop goes on as it was started; 19 is the highest.
        #expect(values.0 == (began.mayTakeItBack ? values.1 : min(values.1 + 3, 19)))
    }

    @Test("jobs queued before stop run, later ones are refused, and stopping twice does nothing")
    func stopRunsJobs() throws {
        let reactor = try LibaioReactor()
        try reactor.start()
        let ran = Atomic<Int>(0)
        for _ in 0..<1000 { reactor.enqueue { ran.add(1, ordering: .relaxed) } }
        reactor.stop()
        #expect(ran.load(ordering: .relaxed) == 1000)
        #expect(!reactor.enqueue {})
        #expect(throws: ReactorStopped.self) { try reactor.performAndWait {} }
        reactor.stop()
    }

    @Test("stop ends connections with a FIN and releases handlers")
    func stopReleases() throws {
        try withReactor { outside in
            final class Probe: SocketHandler {
                func socketConnected(_ socket: SocketID) {}
                func socketOutput(_: SocketID, into _: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int { 0 }
                func socketSent(_: SocketID, byteCount _: Int) {}
                func socketInput(_: SocketID) -> UnsafeMutableRawBufferPointer { .init(start: nil, count: 0) }
                func socketReceived(_: SocketID, placedByteCount _: Int, spill _: UnsafeRawBufferPointer) {}
                func socketClosed(_: SocketID, reason _: SocketCloseReason) {}
            }
            let server = Recorder(outside)
            let address = try outside.performAndWait {
                outside.localAddress(of: try outside.listen(on: loopback, handler: Acceptor { _, _ in server }))!
            }
            weak var handler: Probe?
            weak var gone: LibaioReactor?
            do {
                let reactor = try LibaioReactor()
                gone = reactor
                try reactor.start()
                try reactor.performAndWait {
                    let probe = Probe()
                    handler = probe
                    _ = reactor.connect(to: address, from: nil, handler: probe)
                    _ = reactor.setTimer(at: .distantFuture, handler: TimerRecorder { .zero }, token: 0)
                }
                usleep(20_000)
                reactor.stop()
            }
            #expect(handler == nil)
            #expect(gone == nil)
            try outside.wait(for: "the FIN") { server.closeReason == .endOfStream }
        }
    }

    @Test("stop forgets timers: a handler that knows its reactor does not keep it")
    func stopForgetsTimers() throws {
        weak var forgotten: LibaioReactor?
        do {
            let reactor = try LibaioReactor()
            forgotten = reactor
            try reactor.start()
            try reactor.performAndWait {
                let recorder = TimerRecorder { reactor.now }
                _ = reactor.setTimer(at: reactor.now + .seconds(1000), handler: recorder, token: 1)
                _ = reactor.setTimer(at: reactor.now + .seconds(2000), handler: recorder, token: 2)
            }
            reactor.stop()
        }
        #expect(forgotten == nil)
    }

    @Test("tasks that prefer the reactor run on its thread, before and after they wait")
    func taskExecutor() async throws {
        let reactor = try LibaioReactor()
        try reactor.start()
        let places = await Task(executorPreference: reactor) {
            var places = [reactor.isOnReactorThread]
            await Task.yield()
            places.append(reactor.isOnReactorThread)
            await withCheckedContinuation { continuation in
                reactor.enqueue { continuation.resume() }
            }
            places.append(reactor.isOnReactorThread)
            places.append(await Task { reactor.isOnReactorThread }.value)
            try? await Task.sleep(for: .milliseconds(1))
            places.append(reactor.isOnReactorThread)
            return places
        }.value
        // An unstructured task does not inherit the preference; everything else stays.
        #expect(places == [true, true, true, false, true])
        #expect(!reactor.isOnReactorThread)
        let sum = await withTaskExecutorPreference(reactor) {
            await withTaskGroup(of: Int.self) { group in
                for number in 0..<1000 { group.addTask { reactor.isOnReactorThread ? number : -1_000_000 } }
                return await group.reduce(0, +)
            }
        }
        #expect(sum == 499_500)
        reactor.stop()
    }

    @Test("a task that waits on a reactor still ends after it stopped")
    func taskEndsAfterStop() async throws {
        let reactor = try LibaioReactor()
        try reactor.start()
        let task = Task(executorPreference: reactor) {
            try? await Task.sleep(for: .milliseconds(50))
            return 7
        }
        usleep(5000)
        reactor.stop()
        #expect(await task.value == 7)
    }

    @Test("many reactors at once, one after the other, leave nothing behind")
    func manyReactors() throws {
        for _ in 0..<5 {
            let reactors = try (0..<3).map { _ in try LibaioReactor(options: .with { $0.socketCapacity = 64 }) }
            for reactor in reactors { try reactor.start() }
            for reactor in reactors { reactor.stop() }
        }
    }

    @Test("too many asynchronous operations is an error that names the limit")
    func limit() throws {
        let error = #expect(throws: IOError.self) {
            _ = try LibaioReactor(options: .with { $0.socketCapacity = 1 << 19 })
        }
        #expect(error?.code == EAGAIN)
        #expect(error?.operation.contains("fs.aio-max-nr") == true)
    }
}
