// Names of the additional sense codes that the error table acts on or a target returns. The texts follow
// SPC-4 annex F, in lower case.

extension AdditionalSense {
    /// No additional sense information.
    public static let none = AdditionalSense(0x00, 0x00)
    /// Logical unit not ready, cause not reportable.
    public static let notReadyCauseNotReportable = AdditionalSense(0x04, 0x00)
    /// Logical unit is in process of becoming ready.
    public static let becomingReady = AdditionalSense(0x04, 0x01)
    /// Logical unit not ready, initializing command required.
    public static let initializingCommandRequired = AdditionalSense(0x04, 0x02)
    /// Logical unit not ready, manual intervention required.
    public static let manualInterventionRequired = AdditionalSense(0x04, 0x03)
    /// Logical unit not ready, format in progress.
    public static let formatInProgress = AdditionalSense(0x04, 0x04)
    /// Logical unit not ready, rebuild in progress.
    public static let rebuildInProgress = AdditionalSense(0x04, 0x05)
    /// Logical unit not ready, recalculation in progress.
    public static let recalculationInProgress = AdditionalSense(0x04, 0x06)
    /// Logical unit not ready, operation in progress.
    public static let operationInProgress = AdditionalSense(0x04, 0x07)
    /// Logical unit not ready, long write in progress.
    public static let longWriteInProgress = AdditionalSense(0x04, 0x08)
    /// Logical unit not ready, self-test in progress.
    public static let selfTestInProgress = AdditionalSense(0x04, 0x09)
    /// Logical unit not accessible, asymmetric access state transition.
    public static let accessStateTransition = AdditionalSense(0x04, 0x0A)
    /// Logical unit not accessible, target port in standby state.
    public static let portInStandbyState = AdditionalSense(0x04, 0x0B)
    /// Logical unit not accessible, target port in unavailable state.
    public static let portInUnavailableState = AdditionalSense(0x04, 0x0C)
    /// Logical unit not ready, space allocation in progress.
    public static let spaceAllocationInProgress = AdditionalSense(0x04, 0x14)
    /// Logical unit not ready, sanitize in progress.
    public static let sanitizeInProgress = AdditionalSense(0x04, 0x1B)
    /// Logical unit does not respond to selection.
    public static let doesNotRespondToSelection = AdditionalSense(0x05, 0x00)
    /// Logical unit communication failure.
    public static let communicationFailure = AdditionalSense(0x08, 0x00)
    /// Logical unit communication time-out.
    public static let communicationTimeout = AdditionalSense(0x08, 0x01)
    /// Write error.
    public static let writeError = AdditionalSense(0x0C, 0x00)
    /// Write error, auto reallocation failed.
    public static let writeErrorReallocationFailed = AdditionalSense(0x0C, 0x02)
    /// Write error, unexpected unsolicited data.
    public static let unexpectedUnsolicitedData = AdditionalSense(0x0C, 0x0C)
    /// Write error, not enough unsolicited data.
    public static let notEnoughUnsolicitedData = AdditionalSense(0x0C, 0x0D)
    /// Logical block guard check failed.
    public static let logicalBlockGuardCheckFailed = AdditionalSense(0x10, 0x01)
    /// Logical block application tag check failed.
    public static let logicalBlockApplicationTagCheckFailed = AdditionalSense(0x10, 0x02)
    /// Logical block reference tag check failed.
    public static let logicalBlockReferenceTagCheckFailed = AdditionalSense(0x10, 0x03)
    /// Unrecovered read error.
    public static let unrecoveredReadError = AdditionalSense(0x11, 0x00)
    /// Read retries exhausted.
    public static let readRetriesExhausted = AdditionalSense(0x11, 0x01)
    /// Unrecovered read error, auto reallocate failed.
    public static let unrecoveredReadErrorAutoReallocateFailed = AdditionalSense(0x11, 0x04)
    /// Unrecovered read error, recommend rewrite the data.
    public static let unrecoveredReadErrorRecommendRewrite = AdditionalSense(0x11, 0x0C)
    /// Read error, failed retransmission request.
    public static let failedRetransmissionRequest = AdditionalSense(0x11, 0x13)
    /// Read error, LBA marked bad by application client.
    public static let lbaMarkedBad = AdditionalSense(0x11, 0x14)
    /// Address mark not found for data field.
    public static let addressMarkNotFoundForDataField = AdditionalSense(0x13, 0x00)
    /// Recorded entity not found.
    public static let recordedEntityNotFound = AdditionalSense(0x14, 0x00)
    /// Record not found.
    public static let recordNotFound = AdditionalSense(0x14, 0x01)
    /// Parameter list length error.
    public static let parameterListLengthError = AdditionalSense(0x1A, 0x00)
    /// Defect list not found.
    public static let defectListNotFound = AdditionalSense(0x1C, 0x00)
    /// Miscompare during verify operation.
    public static let miscompareDuringVerify = AdditionalSense(0x1D, 0x00)
    /// Invalid command operation code.
    public static let invalidOperationCode = AdditionalSense(0x20, 0x00)
    /// Logical block address out of range.
    public static let lbaOutOfRange = AdditionalSense(0x21, 0x00)
    /// Illegal function.
    public static let illegalFunction = AdditionalSense(0x22, 0x00)
    /// Invalid field in CDB.
    public static let invalidFieldInCommand = AdditionalSense(0x24, 0x00)
    /// Logical unit not supported.
    public static let logicalUnitNotSupported = AdditionalSense(0x25, 0x00)
    /// Invalid field in parameter list.
    public static let invalidFieldInParameterList = AdditionalSense(0x26, 0x00)
    /// Parameter not supported.
    public static let parameterNotSupported = AdditionalSense(0x26, 0x01)
    /// Parameter value invalid.
    public static let parameterValueInvalid = AdditionalSense(0x26, 0x02)
    /// Invalid release of persistent reservation.
    public static let invalidReleaseOfPersistentReservation = AdditionalSense(0x26, 0x04)
    /// Too many segment descriptors.
    public static let tooManySegmentDescriptors = AdditionalSense(0x26, 0x08)
    /// Write protected.
    public static let writeProtected = AdditionalSense(0x27, 0x00)
    /// Hardware write protected.
    public static let hardwareWriteProtected = AdditionalSense(0x27, 0x01)
    /// Logical unit software write protected.
    public static let logicalUnitSoftwareWriteProtected = AdditionalSense(0x27, 0x02)
    /// Space allocation failed, write protect.
    public static let spaceAllocationFailedWriteProtect = AdditionalSense(0x27, 0x07)
    /// Not ready to ready change, medium may have changed.
    public static let mediumMayHaveChanged = AdditionalSense(0x28, 0x00)
    /// Power on, reset, or bus device reset occurred.
    public static let powerOnResetOrBusDeviceReset = AdditionalSense(0x29, 0x00)
    /// Power on occurred.
    public static let powerOnOccurred = AdditionalSense(0x29, 0x01)
    /// SCSI bus reset occurred.
    public static let scsiBusResetOccurred = AdditionalSense(0x29, 0x02)
    /// Bus device reset function occurred.
    public static let busDeviceResetFunctionOccurred = AdditionalSense(0x29, 0x03)
    /// Device internal reset.
    public static let deviceInternalReset = AdditionalSense(0x29, 0x04)
    /// Transceiver mode changed to single-ended.
    public static let transceiverModeChangedToSingleEnded = AdditionalSense(0x29, 0x05)
    /// Transceiver mode changed to LVD.
    public static let transceiverModeChangedToLVD = AdditionalSense(0x29, 0x06)
    /// I_T nexus loss occurred.
    public static let nexusLossOccurred = AdditionalSense(0x29, 0x07)
    /// Parameters changed.
    public static let parametersChanged = AdditionalSense(0x2A, 0x00)
    /// Mode parameters changed.
    public static let modeParametersChanged = AdditionalSense(0x2A, 0x01)
    /// Log parameters changed.
    public static let logParametersChanged = AdditionalSense(0x2A, 0x02)
    /// Reservations preempted.
    public static let reservationsPreempted = AdditionalSense(0x2A, 0x03)
    /// Reservations released.
    public static let reservationsReleased = AdditionalSense(0x2A, 0x04)
    /// Registrations preempted.
    public static let registrationsPreempted = AdditionalSense(0x2A, 0x05)
    /// Asymmetric access state changed.
    public static let accessStateChanged = AdditionalSense(0x2A, 0x06)
    /// Implicit asymmetric access state transition failed.
    public static let implicitTransitionFailed = AdditionalSense(0x2A, 0x07)
    /// Priority changed.
    public static let priorityChanged = AdditionalSense(0x2A, 0x08)
    /// Capacity data has changed.
    public static let capacityDataChanged = AdditionalSense(0x2A, 0x09)
    /// Command sequence error.
    public static let commandSequenceError = AdditionalSense(0x2C, 0x00)
    /// Commands cleared by another initiator.
    public static let commandsClearedByAnotherInitiator = AdditionalSense(0x2F, 0x00)
    /// Commands cleared by power loss notification.
    public static let commandsClearedByPowerLoss = AdditionalSense(0x2F, 0x01)
    /// Commands cleared by device server.
    public static let commandsClearedByDeviceServer = AdditionalSense(0x2F, 0x02)
    /// Incompatible medium installed.
    public static let incompatibleMediumInstalled = AdditionalSense(0x30, 0x00)
    /// Medium format corrupted.
    public static let mediumFormatCorrupted = AdditionalSense(0x31, 0x00)
    /// Rounded parameter.
    public static let roundedParameter = AdditionalSense(0x37, 0x00)
    /// Thin provisioning soft threshold reached.
    public static let thinProvisioningSoftThresholdReached = AdditionalSense(0x38, 0x07)
    /// Saving parameters not supported.
    public static let savingParametersNotSupported = AdditionalSense(0x39, 0x00)
    /// Medium not present.
    public static let mediumNotPresent = AdditionalSense(0x3A, 0x00)
    /// Invalid bits in identify message.
    public static let invalidBitsInIdentifyMessage = AdditionalSense(0x3D, 0x00)
    /// Logical unit has not self-configured yet.
    public static let notSelfConfiguredYet = AdditionalSense(0x3E, 0x00)
    /// Logical unit failure.
    public static let logicalUnitFailure = AdditionalSense(0x3E, 0x01)
    /// Timeout on logical unit.
    public static let timeoutOnLogicalUnit = AdditionalSense(0x3E, 0x02)
    /// Target operating conditions have changed.
    public static let targetOperatingConditionsChanged = AdditionalSense(0x3F, 0x00)
    /// Microcode has been changed.
    public static let microcodeChanged = AdditionalSense(0x3F, 0x01)
    /// Inquiry data has changed.
    public static let inquiryDataChanged = AdditionalSense(0x3F, 0x03)
    /// Device identifier changed.
    public static let deviceIdentifierChanged = AdditionalSense(0x3F, 0x05)
    /// Reported LUNs data has changed.
    public static let reportedLUNsDataChanged = AdditionalSense(0x3F, 0x0E)
    /// Internal target failure.
    public static let internalTargetFailure = AdditionalSense(0x44, 0x00)
    /// SCSI parity error.
    public static let scsiParityError = AdditionalSense(0x47, 0x00)
    /// Data phase CRC error detected.
    public static let dataPhaseCRCError = AdditionalSense(0x47, 0x01)
    /// Protocol service CRC error.
    public static let protocolServiceCRCError = AdditionalSense(0x47, 0x05)
    /// Initiator detected error message received.
    public static let initiatorDetectedErrorMessage = AdditionalSense(0x48, 0x00)
    /// Invalid message error.
    public static let invalidMessageError = AdditionalSense(0x49, 0x00)
    /// Data phase error.
    public static let dataPhaseError = AdditionalSense(0x4B, 0x00)
    /// Too much write data.
    public static let tooMuchWriteData = AdditionalSense(0x4B, 0x02)
    /// ACK/NAK timeout.
    public static let ackNakTimeout = AdditionalSense(0x4B, 0x03)
    /// Data offset error.
    public static let dataOffsetError = AdditionalSense(0x4B, 0x05)
    /// Initiator response timeout.
    public static let initiatorResponseTimeout = AdditionalSense(0x4B, 0x06)
    /// Overlapped commands attempted.
    public static let overlappedCommandsAttempted = AdditionalSense(0x4E, 0x00)
    /// Insufficient resources.
    public static let insufficientResources = AdditionalSense(0x55, 0x03)
    /// Insufficient registration resources.
    public static let insufficientRegistrationResources = AdditionalSense(0x55, 0x04)
    /// Medium removal prevented.
    public static let mediumRemovalPrevented = AdditionalSense(0x53, 0x02)
    /// Set target port groups command failed.
    public static let setTargetPortGroupsFailed = AdditionalSense(0x67, 0x0A)
}
