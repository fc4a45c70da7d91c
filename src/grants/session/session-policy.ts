import { s3TaskPrefix } from '../../protocol/s3-layout.js'

/** STS takes no longer policy: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html */
const MAX_POLICY_CHARACTERS = 2048

/**
 * What a session may do: write, take up and give up uploads, and read, all under the task's own prefix. It may not list, so
 * AWS answers 403 where there is no object; whoever uses the session has to know that.
 */
export function sessionPolicy(at: {
  readonly bucket: string
  readonly prefix: string
  readonly region: string
  readonly taskId: string
}): string {
  const partition = at.region.startsWith('cn-') ? 'aws-cn' : 'aws'
  const policy = JSON.stringify({
    Version: '2012-10-17',
    Statement: [
      {
        Effect: 'Allow',
        Action: ['s3:PutObject', 's3:PutObjectTagging', 's3:GetObject', 's3:AbortMultipartUpload'],
        Resource: [`arn:${partition}:s3:::${at.bucket}/${literal(s3TaskPrefix(at.prefix, at.taskId))}*`],
      },
    ],
  })
  // Prefix, bucket and task id have limits of their own far below it.
  if (policy.length > MAX_POLICY_CHARACTERS)
    throw new RangeError(`a session policy of ${policy.length} characters`)
  return policy
}

/** A key as it is, where wildcards and variables would be read: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html */
function literal(text: string): string {
  return text.replace(/[*?$]/g, (sign) => `\${${sign}}`)
}
