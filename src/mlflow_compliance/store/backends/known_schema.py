"""What every revision of MLflow's schema makes, up to that of MLflow 3.18.0. Written by .ci/known_schema.py: do not edit."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_REVISIONS = """
initial experiments:artifact_location,experiment_id,lifecycle_stage,name metrics:key,run_uuid,timestamp,value params:key,run_uuid,value runs:artifact_uri,end_time,entry_point_name,experiment_id,lifecycle_stage,name,run_uuid,source_name,source_type,source_version,start_time,status,user_id tags:key,run_uuid,value
451aebb31d03 alembic_version:version_num metrics:step
90e64c465722
181f10493468 metrics:is_nan
df50e92ffc5e experiment_tags:experiment_id,key,value
7ac759974ad8
89d4b8295536 latest_metrics:is_nan,key,run_uuid,step,timestamp,value
2b4d017a5e9b model_versions:creation_time,current_stage,description,last_updated_time,name,run_id,source,status,status_message,user_id,version registered_models:creation_time,description,last_updated_time,name
cfd24bdc0731
0a8213491aaa
728d730b5ebd registered_model_tags:key,name,value
27a6a02d2cf1 model_version_tags:key,name,value,version
84291f40a231 model_versions:run_link
a8c4a736bde6
39d1c3be5f05
c48cb773bb87
bd07f7e963c5
0c779009ac13 runs:deleted_time
cc1f77228345
97727af70f4d experiments:creation_time,last_update_time
3500859a5d39 registered_model_aliases:alias,name,version
7f2a7d5fae7d datasets:dataset_profile,dataset_schema,dataset_source,dataset_source_type,dataset_uuid,digest,experiment_id,name input_tags:input_uuid,name,value inputs:destination_id,destination_type,input_uuid,source_id,source_type
2d6e25af4d3e
acf3f17fdcc7 model_versions:storage_location
867495a8f9d4 trace_info:execution_time_ms,experiment_id,request_id,status,timestamp_ms trace_request_metadata:key,request_id,value trace_tags:key,request_id,value
5b0e9adcef9c
4465047574b1
f5a4f2784254
0584bdc529eb
400f98739977 logged_model_metrics:dataset_digest,dataset_name,dataset_uuid,experiment_id,metric_name,metric_step,metric_timestamp_ms,metric_value,model_id,run_id logged_model_params:experiment_id,model_id,param_key,param_value logged_model_tags:experiment_id,model_id,tag_key,tag_value logged_models:artifact_location,creation_timestamp_ms,experiment_id,last_updated_timestamp_ms,lifecycle_stage,model_id,model_type,name,source_run_id,status,status_message
6953534de441 inputs:step
bda7b8c39065
cbc13b556ace trace_info:client_request_id,request_preview,response_preview
770bee3ae1dd assessments:assessment_id,assessment_metadata,assessment_type,created_timestamp,error,last_updated_timestamp,name,overrides,rationale,run_id,source_id,source_type,span_id,trace_id,valid,value
a1b2c3d4e5f6 spans:content,duration_ns,end_time_unix_nano,experiment_id,name,parent_span_id,span_id,start_time_unix_nano,status,trace_id,type
de4033877273 entity_associations:association_id,created_time,destination_id,destination_type,source_id,source_type
1a0cddfcaa16 webhook_events:action,entity,webhook_id webhooks:creation_timestamp,deleted_timestamp,description,last_updated_timestamp,name,secret,status,url,webhook_id
534353b11cbc scorer_versions:creation_time,scorer_id,scorer_version,serialized_scorer scorers:experiment_id,scorer_id,scorer_name
71994744cf8e evaluation_dataset_records:created_by,created_time,dataset_id,dataset_record_id,expectations,input_hash,inputs,last_update_time,last_updated_by,source,source_id,source_type,tags evaluation_dataset_tags:dataset_id,key,value evaluation_datasets:created_by,created_time,dataset_id,digest,last_update_time,last_updated_by,name,profile,schema
3da73c924c2f evaluation_dataset_records:outputs
bf29a5ff90ea jobs:creation_time,function_fullname,id,last_update_time,params,result,retry_count,status,timeout
1bd49d398cd23 endpoint_bindings:created_at,created_by,endpoint_id,last_updated_at,last_updated_by,resource_id,resource_type endpoint_model_mappings:created_at,created_by,endpoint_id,mapping_id,model_definition_id,weight endpoint_tags:endpoint_id,key,value endpoints:created_at,created_by,endpoint_id,last_updated_at,last_updated_by,name model_definitions:created_at,created_by,last_updated_at,last_updated_by,model_definition_id,model_name,name,provider,secret_id secrets:auth_config,created_at,created_by,description,encrypted_value,kek_version,last_updated_at,last_updated_by,masked_value,provider,secret_id,secret_name,wrapped_dek
b7c8d9e0f1a2 trace_metrics:key,request_id,value
5d2d30f0abce jobs:job_name -jobs:function_fullname
c9d4e5f6a7b8 endpoint_model_mappings:fallback_order,linkage_type endpoints:fallback_config_json,routing_strategy
2c33131f4dae online_scoring_configs:experiment_id,filter_string,online_scoring_config_id,sample_rate,scorer_id
d3e4f5a6b7c8 endpoint_bindings:display_name
d0e1f2a3b4c5 endpoints:experiment_id,usage_tracking
c8d9e0f1a2b3 span_metrics:key,span_id,trace_id,value spans:dimension_attributes
1b5f0d9ad7c1 endpoints:workspace evaluation_datasets:workspace experiments:workspace jobs:workspace model_definitions:workspace model_version_tags:workspace model_versions:workspace registered_model_aliases:workspace registered_model_tags:workspace registered_models:workspace secrets:workspace webhooks:workspace workspaces:default_artifact_root,description,name
e1f2a3b4c5d6 budget_policies:budget_action,budget_amount,budget_policy_id,budget_unit,created_at,created_by,duration_unit,duration_value,last_updated_at,last_updated_by,target_scope,workspace
76601a5f987d issues:categories,created_by,created_timestamp,description,experiment_id,issue_id,last_updated_timestamp,name,root_causes,severity,source_run_id,status
c3d6457b6d8a jobs:status_details
a5b4c3d2e1f0
ae8bbe7743c9 guardrail_configs:created_at,created_by,endpoint_id,execution_order,guardrail_id,workspace guardrails:action,action_endpoint_id,created_at,created_by,guardrail_id,last_updated_at,last_updated_by,name,scorer_id,scorer_version,stage,workspace
7d34483879f0
da6fb0208061 trace_info:db_payload_generation workspaces:trace_archival_location,trace_archival_retention
89d3d66ed43f label_schemas:created_by,created_time,enable_comment,experiment_id,input_config,input_type,instruction,is_default,last_update_time,name,schema_id,type
b7e4c1a90f23 review_queue_items:completed_by,completed_time_ms,creation_time_ms,item_id,item_type,last_update_time_ms,queue_id,status review_queue_label_schemas:queue_id,schema_id review_queue_users:queue_id,user_id review_queues:created_by,creation_time_ms,experiment_id,last_update_time_ms,name,name_key,queue_id,queue_type
a8b9c0d1e2f3 mcp_access_endpoints:created_at,created_by,id,last_updated_at,last_updated_by,server_alias,server_name,server_version,transport_type,url,workspace mcp_server_aliases:alias,name,version,workspace mcp_server_tags:key,name,value,workspace mcp_server_version_tags:key,name,value,version,workspace mcp_server_versions:connect_options,created_at,created_by,last_updated_at,last_updated_by,name,server_json,source,status,tools,version,version_major,version_minor,version_patch,version_prerelease_sort_key,workspace mcp_servers:created_at,created_by,description,display_name,icons,last_updated_at,last_updated_by,name,workspace
c1d2e3f4a5b6
c3d9e7f1a2b4 budget_policies:target_value
6f8d9c3b2a1e
1971f2d9a75b
17e22815139b
b7e2c1a4d9f3 jobs:creator
75868b020152 assessments:aggregate_value,experiment_id,is_numeric_value,trace_timestamp_ms spans:input_cost,model_name,model_provider,output_cost,total_cost sql_assessment_daily_rollups:experiment_id,grouping_set,id,max_value,metric_name,min_value,rollup_day,sample_count,sum_value sql_span_cost_daily_rollups:experiment_id,grouping_set,id,max_value,metric_name,min_value,model_name,model_provider,rollup_day,sample_count,sum_value sql_trace_metric_daily_rollups:experiment_id,grouping_set,id,max_value,metric_name,min_value,p50_value,p90_value,p99_value,rollup_day,sample_count,sum_value,trace_status sql_trace_rollup_rebuild_queue:experiment_id,rollup_day,rollup_family trace_info:cache_creation_input_tokens,cache_creation_input_tokens_above_1hr,cache_read_input_tokens,input_cost,input_tokens,output_cost,output_tokens,session_id,total_cost,total_tokens,trace_name -spans:dimension_attributes
dc11669786a5 job_locks:acquired_at,job_id,lock_key jobs:executor_backend,lease_expires_at,next_attempt_at,progress,progress_updated_at,scoped_permissions,status_message,token_hash scheduler_leases:acquired_at,lease_key,ttl_seconds
e7d1f4b2a9c6 skill_aliases:alias,name,organization,version,workspace skill_tags:key,name,organization,value,workspace skill_version_tags:key,name,organization,value,version,workspace skill_versions:created_at,created_by,digest,last_updated_at,last_updated_by,name,organization,ref,source,source_type,status,subpath,version,workspace skills:created_at,created_by,description,icons,last_updated_at,last_updated_by,name,organization,search_text,workspace
8b6ad64cb8f5 issue_categories:category,category_hash,issue_id issues:last_seen_timestamp,last_updated_by,metadata
f4a9b2c7d1e6
auth alembic_version_auth:version_num experiment_permissions:experiment_id,id,permission,user_id gateway_endpoint_permissions:endpoint_id,id,permission,user_id gateway_model_definition_permissions:id,model_definition_id,permission,user_id gateway_secret_permissions:id,permission,secret_id,user_id registered_model_permissions:id,name,permission,user_id,workspace role_permissions:id,permission,resource_pattern,resource_type,role_id roles:description,id,name,workspace scorer_permissions:experiment_id,id,permission,scorer_name,user_id user_role_assignments:id,role_id,user_id users:id,is_admin,password_hash,username workspace_permissions:permission,user_id,workspace
"""
"""A line a revision, the oldest first: its id ('auth' for the tables of the basic-auth app), then each table with the columns that it gets, and with
a minus those that it loses."""
_KEYS = """
assessments:trace_id trace_info:request_id
datasets:experiment_id experiments:experiment_id
endpoint_bindings:endpoint_id endpoints:endpoint_id
endpoint_model_mappings:endpoint_id endpoints:endpoint_id
endpoint_model_mappings:model_definition_id model_definitions:model_definition_id
endpoint_tags:endpoint_id endpoints:endpoint_id
endpoints:experiment_id experiments:experiment_id
evaluation_dataset_records:dataset_id evaluation_datasets:dataset_id
evaluation_dataset_tags:dataset_id evaluation_datasets:dataset_id
experiment_tags:experiment_id experiments:experiment_id
guardrail_configs:endpoint_id endpoints:endpoint_id
guardrail_configs:guardrail_id guardrails:guardrail_id
guardrails:action_endpoint_id endpoints:endpoint_id
guardrails:scorer_id,scorer_version scorer_versions:scorer_id,scorer_version
issue_categories:issue_id issues:issue_id
issues:experiment_id experiments:experiment_id
issues:source_run_id runs:run_uuid
job_locks:job_id jobs:id
label_schemas:experiment_id experiments:experiment_id
latest_metrics:run_uuid runs:run_uuid
logged_model_metrics:experiment_id experiments:experiment_id
logged_model_metrics:model_id logged_models:model_id
logged_model_metrics:run_id runs:run_uuid
logged_model_params:experiment_id experiments:experiment_id
logged_model_params:model_id logged_models:model_id
logged_model_tags:experiment_id experiments:experiment_id
logged_model_tags:model_id logged_models:model_id
logged_models:experiment_id experiments:experiment_id
mcp_access_endpoints:workspace,server_name mcp_servers:workspace,name
mcp_server_aliases:workspace,name mcp_servers:workspace,name
mcp_server_tags:workspace,name mcp_servers:workspace,name
mcp_server_version_tags:workspace,name,version mcp_server_versions:workspace,name,version
mcp_server_versions:workspace,name mcp_servers:workspace,name
metrics:run_uuid runs:run_uuid
model_definitions:secret_id secrets:secret_id
model_version_tags:workspace,name,version model_versions:workspace,name,version
model_versions:workspace,name registered_models:workspace,name
online_scoring_configs:experiment_id experiments:experiment_id
online_scoring_configs:scorer_id scorers:scorer_id
params:run_uuid runs:run_uuid
registered_model_aliases:workspace,name registered_models:workspace,name
registered_model_tags:workspace,name registered_models:workspace,name
review_queue_items:queue_id review_queues:queue_id
review_queue_label_schemas:queue_id review_queues:queue_id
review_queue_users:queue_id review_queues:queue_id
review_queues:experiment_id experiments:experiment_id
runs:experiment_id experiments:experiment_id
scorer_versions:scorer_id scorers:scorer_id
scorers:experiment_id experiments:experiment_id
skill_aliases:workspace,organization,name skills:workspace,organization,name
skill_tags:workspace,organization,name skills:workspace,organization,name
skill_version_tags:workspace,organization,name,version skill_versions:workspace,organization,name,version
skill_versions:workspace,organization,name skills:workspace,organization,name
span_metrics:trace_id,span_id spans:trace_id,span_id
spans:experiment_id experiments:experiment_id
spans:trace_id trace_info:request_id
tags:run_uuid runs:run_uuid
trace_info:experiment_id experiments:experiment_id
trace_metrics:request_id trace_info:request_id
trace_request_metadata:request_id trace_info:request_id
trace_tags:request_id trace_info:request_id
webhook_events:webhook_id webhooks:webhook_id
"""
"""A line a foreign key of the last revision: table and columns, the table that they lead to and its columns."""


class Key(NamedTuple):
    """A foreign key; MLflow ties a row to its parent by it."""

    table: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


def _named(text: str) -> tuple[str, tuple[str, ...]]:
    table, _, columns = text.partition(":")
    return table, tuple(columns.split(","))


def _read(sign: str) -> dict[str, Mapping[str, frozenset[str]]]:
    found: dict[str, Mapping[str, frozenset[str]]] = {}
    for line in _REVISIONS.strip().splitlines():
        revision, *tables = line.split()
        marked = (_named(item.removeprefix("-")) for item in tables if item.startswith("-") == (sign == "-"))
        found[revision] = {table: frozenset(columns) for table, columns in marked}
    return found


MADE: Mapping[str, Mapping[str, frozenset[str]]] = _read("+")
"""Revision -> table -> the columns that it gets by it, in the order of the revisions."""
LOST: Mapping[str, Mapping[str, frozenset[str]]] = _read("-")
"""Revision -> table -> the columns that it loses by it; a table that goes loses all."""
KNOWN: Mapping[str, frozenset[str]] = {
    table: frozenset(column for made in MADE.values() for column in made.get(table, ()))
    for table in sorted(set().union(*MADE.values()))
}
"""Every table that any of these revisions has, with every column that it ever had."""
KEYS: tuple[Key, ...] = tuple(
    Key(*_named(child), *_named(parent)) for child, parent in map(str.split, _KEYS.strip().splitlines())
)
